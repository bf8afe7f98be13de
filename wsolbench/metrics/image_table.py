"""The table of a run: what was measured of each image, without loss and small enough to keep.

From threshold to threshold the box of an image stays as it is for long, so that a table holds its
changes. The overlap with the true boxes is not kept but computed again from both, by the very
function that scored it; only where another contour's box was better is that IoU kept beside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolbench.arrays import UNREADABLE, pack, unpack
from wsolbench.errors import InputError
from wsolbench.metrics import functional as F

_VERSION = 1
#: columns of a row of changes
_START, _BOX, _BETTER, COLUMNS = 0, slice(1, 5), 5, 6
_DTYPES = (np.uint8, np.int16, np.int32)


@dataclass(frozen=True)
class Facts:
    """What all images of a table share.

    Attributes:
        iou: IoU at which a box is right.
        strict_top: top-k localisation needs an IoU strictly above that.
        frame: side of the square that boxes are compared in, pixels.
        of_all: whether the boxes of all contours were looked at.
        ranked: whether there was a classifier.
    """

    iou: float
    strict_top: bool
    frame: int
    of_all: bool
    ranked: bool


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Measurements of N images at T thresholds, the images in the order of their names.

    Attributes:
        facts: what the images share.
        image_id: names (N,).
        label: (N,) true classes.
        rank: (N,) classes that the classifier puts before the true one; -1 without classifier.
        dead: (N,) whether the map is constant, or NaN or infinite somewhere.
        thresholds: (T,).
        true_count: (N,) true boxes of each image.
        true_boxes: (sum of ``true_count``, 4) in the frame.
        change_count: (N,) rows of ``changes`` of each image, at least 1.
        changes: (sum of ``change_count``, 6) float64: number of the threshold from which on the row
            holds, the predicted box, and the best IoU of any contour's box where that is another
            one than the box's own, else 0.
    """

    facts: Facts
    image_id: tuple[str, ...]
    label: F.Ints
    rank: F.Ints
    dead: F.Bools
    thresholds: F.Floats
    true_count: F.Ints
    true_boxes: F.Floats
    change_count: F.Ints
    changes: F.Floats

    def __len__(self) -> int:
        return len(self.image_id)

    @cached_property
    def spans(self) -> F.Ints:
        """First threshold of each change and one past its last one (R, 2)."""
        starts = self.changes[:, _START].astype(np.int64)
        ends = np.append(starts[1:], len(self.thresholds))
        ends[np.cumsum(self.change_count) - 1] = len(self.thresholds)
        return np.stack([starts, ends], axis=1)

    @cached_property
    def iou(self) -> F.Floats:
        """Best IoU (R,) of the box of each change with a true one."""
        best = np.zeros(len(self.changes))
        for place, true in enumerate(np.moveaxis(self.true_by_place, 1, 0)):
            having = np.repeat(self.true_count > place, self.change_count)
            pairs = self.changes[having, _BOX], np.repeat(true, self.change_count, axis=0)[having]
            best[having] = np.maximum(best[having], F.paired_iou(*pairs))
        return best

    @cached_property
    def iou_of_all(self) -> F.Floats:
        """The same (R,) over the boxes of all contours."""
        better = self.changes[:, _BETTER]
        return np.where(better != 0, better, self.iou)

    def at(self, index: int) -> F.Bools:
        """Which changes (R,) hold at a threshold: one an image, in order."""
        starts, ends = self.spans.T
        return np.asarray((starts <= index) & (index < ends))

    def counts(self, right: F.Bools) -> F.Ints:
        """At how many images (T,) the change that holds at each threshold is ``right`` (R,)."""
        steps = np.zeros(len(self.thresholds) + 1, np.int64)
        np.add.at(steps, self.spans[right, 0], 1)
        np.add.at(steps, self.spans[right, 1], -1)
        return np.asarray(np.cumsum(steps)[:-1])

    def box(self, index: int) -> F.Floats:
        """Predicted boxes (N, 4) at a threshold."""
        return np.asarray(self.changes[self.at(index), _BOX])

    def per_image(self, values: F.Floats) -> F.Floats:
        """Values (R,) of the changes spread over the thresholds (N, T)."""
        length = self.spans[:, 1] - self.spans[:, 0]
        return np.repeat(values, length).reshape(len(self), -1)

    @cached_property
    def true_by_image(self) -> list[F.Floats]:
        """True boxes (n, 4) of each image."""
        return _split(self.true_boxes, self.true_count)

    @cached_property
    def true_by_place(self) -> F.Floats:
        """True boxes (N, most that an image has, 4), NaN past an image's last one."""
        image = np.repeat(np.arange(len(self)), self.true_count)
        first = np.cumsum(self.true_count) - self.true_count
        boxes = np.full((len(self), self.true_count.max(), 4), np.nan)
        boxes[image, np.arange(len(image)) - first[image]] = self.true_boxes
        return boxes

    def ordered(self) -> ImageTable:
        """Return the images in the order of their names, whatever order they were scored in."""
        return self.taken(np.argsort(np.array(self.image_id), kind="stable"))

    def taken(self, order: F.Ints) -> ImageTable:
        """Return the images with these numbers, in this order; at least one."""
        changed, true = _split(self.changes, self.change_count), self.true_by_image
        return replace(
            self,
            image_id=tuple(self.image_id[i] for i in order),
            label=self.label[order],
            rank=self.rank[order],
            dead=self.dead[order],
            true_count=self.true_count[order],
            true_boxes=np.concatenate([true[i] for i in order]),
            change_count=self.change_count[order],
            changes=np.concatenate([changed[i] for i in order]),
        )


def _split(rows: F.Floats, counts: F.Ints) -> list[F.Floats]:
    """Rows of each image."""
    return np.split(rows, np.cumsum(counts)[:-1])


def changes(boxes: F.Floats, iou: F.Floats, iou_of_all: F.Floats | None) -> F.Floats:
    """Return what changes from threshold to threshold, see :attr:`ImageTable.changes`.

    Args:
        boxes: (T, 4).
        iou: (T,).
        iou_of_all: (T,), or None where only the box itself was looked at.

    Returns:
        (r, 6), the first row for the first threshold.
    """
    better = np.zeros(len(iou))
    if iou_of_all is not None:
        better = np.where(iou_of_all == iou, 0.0, iou_of_all)
    rows = np.column_stack([boxes, better]).astype(np.float64)
    bits = rows.view(np.int64)  # a NaN is no change from the same NaN
    starts = np.flatnonzero(np.append(True, (bits[1:] != bits[:-1]).any(axis=1)))
    return np.column_stack([starts, rows[starts]])


# ---------------------------------------------------------------------------------------- bytes


def to_bytes(table: ImageTable) -> bytes:
    """Return the same bytes for the same table, for :func:`from_bytes`."""
    contents: dict[str, NDArray[Any]] = {
        "facts": _text({"version": _VERSION, **vars(table.facts)}),
        "image_id": _text(table.image_id),
        "thresholds": table.thresholds,
        "dead": table.dead,
        **{name: _narrow(getattr(table, name)) for name in _INTEGERS},
        **{f"true_boxes_{i}": _narrow(column) for i, column in enumerate(table.true_boxes.T)},
        **{f"changes_{i}": _narrow(column) for i, column in enumerate(table.changes.T)},
    }
    return pack(contents)


_INTEGERS = ("label", "rank", "true_count", "change_count")


def from_bytes(content: bytes) -> ImageTable:
    """Read what :func:`to_bytes` has written.

    Raises:
        InputError: when it is no table, or one of a later version.
    """
    try:
        arrays = unpack(content)
        facts = json.loads(arrays["facts"].tobytes())
        if facts.pop("version") != _VERSION:
            raise InputError("the table is of another version of wsolbench; score the run again")
        return _table(Facts(**facts), arrays)
    except UNREADABLE as error:
        raise InputError("it is no table of a run, or damaged") from error


def _table(facts: Facts, arrays: dict[str, NDArray[Any]]) -> ImageTable:
    integers = {name: arrays[name].astype(np.int64) for name in _INTEGERS}
    return ImageTable(
        facts=facts,
        image_id=tuple(json.loads(arrays["image_id"].tobytes())),
        thresholds=arrays["thresholds"],
        true_boxes=_columns(arrays, "true_boxes", 4),
        changes=_columns(arrays, "changes", COLUMNS),
        dead=arrays["dead"].astype(np.bool_),
        **integers,
    )


def _columns(arrays: dict[str, NDArray[Any]], name: str, count: int) -> F.Floats:
    return np.column_stack([arrays[f"{name}_{i}"].astype(np.float64) for i in range(count)])


def _text(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value).encode("ascii"), np.uint8)


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the smallest type that holds them all."""
    for dtype in _DTYPES:
        limits = np.iinfo(dtype)
        within = ((array >= limits.min) & (array <= limits.max)).all()
        if within and (array.astype(dtype) == array).all():
            return np.asarray(array.astype(dtype))
    return array
