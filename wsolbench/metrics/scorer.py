"""The scorer: measurements of images in, figures out; merges across ranks and processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.metrics.image_table import COLUMNS, Facts, ImageTable, changes
from wsolbench.metrics.measure import Measured, measure
from wsolbench.protocol import SINGLE_THRESHOLD, Protocol
from wsolbench.types import Prediction, Truth

#: IoU, in percent, of the curves and of MaxBoxAccV2
IOUS = (30, 50, 70)
#: how many classes each top-k figure looks at
TOP = {"top1": 1, "top5": 5}
#: a share of 1 as a whole number: sums of such do not depend on the order, 2^22 images fit, and
#: what is rounded off is far below a digit of any figure
_WHOLE = 1 << 40

_Rows = Sequence[NDArray[Any] | None]
#: map (h, w), box (4,) and logits (K,) of one image, each None where the method gives none
Row = tuple[NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None]


@dataclass(frozen=True)
class Scores:
    """Figures of a set of images.

    Attributes:
        figures: percentages by the names of :data:`wsolbench.protocol.FIGURES`; only those that the
            protocol defines and that can be computed (no logits: no top-k; no boxes: no box figure;
            no masks: no pxap; no parts: no part_coverage).
        threshold: where the figures of a single threshold were read; None without them.
        curves: ``thresholds`` and, at each of them, percentages ``box_acc_30``, ``_50``, ``_70``,
            ``box_acc_v2_30``, ..., ``top1_loc`` and ``top5_loc``, ``part_coverage_<name>`` of each
            part and their mean ``part_coverage``; beside them ``pxap_precision`` and
            ``pxap_recall`` from the highest score down. Missing where it cannot be computed.
        count: images.
        dead_maps: images whose map is constant, or NaN or infinite somewhere.
    """

    figures: dict[str, float]
    threshold: float | None
    curves: dict[str, list[float]]
    count: int
    dead_maps: int


@dataclass(frozen=True, eq=False)
class _Table:
    """Measurements of all images; what no image has is None.

    Attributes:
        iou: (N, T) as in :class:`Measured`.
        iou_of_all: (N, T) as in :class:`Measured`.
        rank: (N,) as in :class:`Measured`.
        pixels: (2, bins), of all images together.
        parts: (P, T) share of each part within the box, in 1 / `_WHOLE`, of all images together.
        shown: (P,) images that show each part.
        count: N.
        dead: number of dead maps.
    """

    iou: F.Floats | None
    iou_of_all: F.Floats | None
    rank: F.Ints | None
    pixels: F.Ints | None
    parts: F.Ints | None
    shown: F.Ints
    count: int
    dead: int


class Choice(NamedTuple):
    """A threshold chosen on held-out images; of several, the greatest is the best.

    Attributes:
        quality: images in percent whose box hits at the threshold; PxAP where none has boxes.
        run: how many thresholds in a row are as good.
        threshold: None where no image has boxes.
    """

    quality: float
    run: int
    threshold: float | None


class Scorer(Metric):
    """Collects what a method says of images and turns it into figures.

    The state is one row an image and sums of integers, and all figures derive from counts and such
    sums: neither the order of the images nor their spread over ranks changes a digit. An image must
    be scored once, so samplers must not pad.

    Args:
        protocol: how maps become figures.
        dataset_name: name by which a protocol with fixed thresholds finds the dataset's own.
        input_size: side of the square input in pixels, for methods that answer with boxes; None
            for the side of the protocol's frame.
        part_names: what the values from 1 up of the truths' parts stand for.
    """

    full_state_update = False

    iou: list[Tensor]
    iou_of_all: list[Tensor]
    facts: list[Tensor]
    names: list[Tensor]
    true: list[Tensor]
    changes: list[Tensor]
    pixels: Tensor
    parts: Tensor
    shown: Tensor

    def __init__(
        self,
        protocol: Protocol,
        dataset_name: str = "",
        input_size: int | None = None,
        part_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.protocol = protocol
        self.dataset_name = dataset_name
        self.part_names = tuple(part_names)
        self.input_size = input_size or protocol.geometry.frame
        self.thresholds = F.threshold_values(protocol.thresholds)
        bins = len(F.bin_edges(self.thresholds)) - 1
        parts = len(self.part_names)
        self.add_state("iou", [], dist_reduce_fx="cat")  # (n, T) float64
        self.add_state("iou_of_all", [], dist_reduce_fx="cat")  # (n, T), or (n, 0) where unused
        self.add_state("facts", [], dist_reduce_fx="cat")  # (n, 8) int64: see `_facts`
        self.add_state("names", [], dist_reduce_fx="cat")  # uint8: the images', each ended by 0
        self.add_state("true", [], dist_reduce_fx="cat")  # (true boxes, 4) float64
        self.add_state("changes", [], dist_reduce_fx="cat")  # (changes, 6), see `ImageTable`
        self._add_sum("pixels", 2, bins)
        self._add_sum("parts", parts, len(self.thresholds))
        self._add_sum("shown", parts)

    def update(self, truths: Sequence[Truth], prediction: Prediction) -> None:
        """Score one batch.

        Args:
            truths: B truths, in the order of the batch.
            prediction: maps (B, h, w) or boxes (B, 4), and logits (B, K) where there are any. Maps
                that are constant or not finite are legal and count as the protocol says.

        Raises:
            InputError: when the prediction does not fit the batch.
        """
        rows = image_rows(prediction, len(truths))
        self.add([self.measure(*pair) for pair in zip(truths, rows, strict=True)])

    def measure(self, truth: Truth, row: Row) -> Measured:
        """Measure one image for :meth:`add`; leaves all states alone, so any thread may call it.

        Raises:
            InputError: when there are fewer classes in the logits than the label says.
        """
        score_map, box, logits = row
        size, parts = self.input_size, len(self.part_names)
        return measure(truth, self.protocol, score_map, box, logits, size, parts)

    def add(self, measured: Sequence[Measured]) -> None:
        """Take in images that :meth:`measure` has measured, in their order."""
        width = len(self.thresholds)
        wide = width if "max_box_acc_v2" in self.protocol.figures else 0
        self._append("iou", _stacked([m.iou for m in measured], width))
        self._append("iou_of_all", _stacked([m.iou_of_all for m in measured], wide))
        rows = [_changes(m) for m in measured]
        facts = [_facts(m, len(changed)) for m, changed in zip(measured, rows, strict=True)]
        self._append("facts", np.array(facts, dtype=np.int64).reshape(-1, 8))
        self._append("changes", np.concatenate([np.empty((0, COLUMNS)), *rows]))
        true = [m.true for m in measured if m.true is not None]
        self._append("true", np.concatenate([np.empty((0, 4)), *true]))
        names = "".join(f"{m.image_id}\0" for m in measured).encode("utf-8")
        self._append("names", np.frombuffer(names, np.uint8).copy())
        for m in measured:
            if m.pixels is not None:
                self.pixels += torch.from_numpy(m.pixels).to(self.device)
            if m.parts is not None:
                self.parts += torch.from_numpy(_whole(m.parts)).to(self.device)
                self.shown += torch.from_numpy(_shown(m.parts)).to(self.device)

    def select_threshold(self) -> float | None:
        """Choose the threshold on these held-out images, to be carried to others.

        Returns:
            The middle of the longest run of thresholds with most hits at the protocol's IoU (the
            first of equal runs, the lower of two middles). None where there is nothing to choose:
            the protocol takes no threshold from held-out images, or no image has boxes.

        Raises:
            InputError: when no image was scored.
        """
        if self.protocol.selection.kind != "held-out":
            return None
        return self.choice().threshold

    def choice(self) -> Choice:
        """Say what :meth:`select_threshold` chooses, and how good it is.

        Raises:
            InputError: when no image was scored.
        """
        table = self._gathered()
        if not table.count:
            raise InputError(
                f"protocol '{self.protocol.name}' chooses its threshold on `val`, which is empty; "
                "hold training images out with --set holdout=N"
            )
        if table.iou is None:
            pixels = _pixel_curves(table)
            return Choice(_pooled(table, pixels).get("pxap", 0.0), 0, None)
        hits = np.count_nonzero(table.iou >= self.protocol.iou, axis=0)
        index = F.middle_of_longest_run(hits)
        return Choice(
            100.0 * float(hits.max()) / table.count,
            F.longest_run_of_maximum(hits),
            float(self.thresholds[index]),
        )

    def compute(self, threshold: float | None = None) -> Scores:
        """Turn what was scored, on all ranks, into figures.

        Args:
            threshold: what :meth:`select_threshold` of the held-out images' scorer returned.

        Raises:
            InputError: when no image was scored; when part of the images lack logits, boxes,
                masks or parts; when a held-out protocol is given no threshold, or another one is
                given one.
        """
        table = self._gathered()
        if not table.count:
            raise InputError("no image was scored; check that the split is not empty")
        hits = _hits(table, self.protocol)
        index = self._chosen(hits, threshold)
        percent = {name: 100.0 * counts / table.count for name, counts in hits.items()}
        percent.update(_part_curves(table, self.part_names))
        pixels = _pixel_curves(table)
        figures = {**_single(percent, index), **_best(percent), **_pooled(table, pixels)}
        percent.pop("gt_known_loc", None)  # as a curve it is the box accuracy at the same IoU
        curves = {"thresholds": self.thresholds, **percent, **pixels}
        return Scores(
            figures={name: figures[name] for name in self.protocol.figures if name in figures},
            threshold=None if index is None else float(self.thresholds[index]),
            curves={name: curve.tolist() for name, curve in curves.items()},
            count=table.count,
            dead_maps=table.dead,
        )

    def image_table(self) -> ImageTable | None:
        """Return what was measured of each image, on all ranks; None without boxes."""
        table = self._gathered()
        if table.iou is None:
            return None
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            facts, names = _joined(self.facts), _joined(self.names)
            true, changed = _joined(self.true), _joined(self.changes)
        rank, _, _, _, dead, label, true_count, change_count = facts.T
        protocol = self.protocol
        return ImageTable(
            facts=Facts(
                iou=protocol.iou,
                strict_top=protocol.strict_top,
                frame=protocol.geometry.frame,
                of_all=table.iou_of_all is not None,
                ranked=table.rank is not None,
            ),
            image_id=tuple(names.tobytes().decode("utf-8").split("\0")[:-1]),
            label=label,
            rank=rank,
            dead=dead == 1,
            thresholds=self.thresholds,
            true_count=true_count,
            true_boxes=true,
            change_count=change_count,
            changes=changed,
        ).ordered()

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics would answer a second threshold from its cache, and rebuild the frozen result
        # field by field; what it does beside, gathering, is in `_gathered`.
        return compute

    def _gathered(self) -> _Table:
        """Measurements of all ranks. Raises nothing while gathered: the ranks must part in step."""
        if not self.facts:
            self.add([])  # a rank without images takes part with no rows
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            iou, of_all, facts = map(_joined, (self.iou, self.iou_of_all, self.facts))
            pixels, parts, shown = map(_array, (self.pixels, self.parts, self.shown))
        rank, located, masked, parted, dead = facts.T[:5]
        has_iou = _all_or_none(located == 1, "boxes (true ones and the method's)")
        return _Table(
            iou=iou if has_iou else None,
            iou_of_all=of_all if has_iou and of_all.shape[1] else None,
            rank=rank if _all_or_none(rank >= 0, "logits") else None,
            pixels=pixels if _all_or_none(masked == 1, "masks (true ones and maps)") else None,
            parts=parts if _all_or_none(parted == 1, "masks of parts") else None,
            shown=shown,
            count=len(facts),
            dead=int(dead.sum()),
        )

    def _add_sum(self, state: str, *shape: int) -> None:
        self.add_state(state, torch.zeros(*shape, dtype=torch.int64), dist_reduce_fx="sum")

    def _append(self, state: str, rows: NDArray[Any]) -> None:
        getattr(self, state).append(torch.from_numpy(rows).to(self.device))

    def _chosen(self, hits: dict[str, F.Ints], threshold: float | None) -> int | None:
        """Index of the threshold of the single-threshold figures; None where there are none."""
        name, selection = self.protocol.name, self.protocol.selection
        if threshold is not None and selection.kind != "held-out":
            raise InputError(f"protocol '{name}' takes no threshold from elsewhere; give none")
        if "gt_known_loc" not in hits or selection.kind == "none":
            return None
        if selection.kind == "oracle":
            return _oracle(hits, selection.objective)
        if selection.kind == "fixed":
            return self._index(selection.by_dataset.get(self.dataset_name, selection.value))
        return self._index(threshold)

    def _index(self, threshold: float | None) -> int:
        name = self.protocol.name
        if threshold is None:
            raise InputError(
                f"protocol '{name}' needs a threshold from held-out images; "
                "score the `val` split first (--set holdout=N holds some out)"
            )
        found = np.flatnonzero(np.isclose(self.thresholds, threshold, rtol=0, atol=1e-9))
        if not len(found):
            raise InputError(f"threshold {threshold} is none of those of protocol '{name}'")
        return int(found[0])


def image_rows(prediction: Prediction, count: int) -> list[Row]:
    """Map, box and logits of each of ``count`` images; see :func:`to_array`.

    Raises:
        InputError: when the prediction does not fit the batch.
    """
    if prediction.maps is not None and prediction.boxes is not None:
        raise InputError("a prediction has maps or boxes, not both")
    maps = _split(prediction.maps, "maps (B, h, w)", 3, count)
    boxes = _split(prediction.boxes, "boxes (B, 4)", 2, count)
    logits = _split(prediction.logits, "logits (B, K)", 2, count)
    return list(zip(maps, boxes, logits, strict=True))


def _split(tensor: Tensor | None, what: str, ndim: int, count: int) -> _Rows:
    if tensor is None:
        return [None] * count
    if tensor.ndim != ndim or len(tensor) != count:
        shape = tuple(tensor.shape)
        raise InputError(f"the method returned {shape} as {what} of a batch of {count} images")
    return list(to_array(tensor))


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as float32, or as float64 if it is that.

    numpy has no bfloat16 and OpenCV no float16; both fit into float32 exactly.
    """
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return np.asarray(wide.detach().cpu().numpy())


def _facts(m: Measured, change_count: int) -> tuple[int, ...]:
    """Rank (-1 without logits); whether there are an IoU, pixel counts, parts, a dead map.

    Then the label, and how many true boxes and changes there are.
    """
    rank = -1 if m.rank is None else m.rank
    there = (value is not None for value in (m.iou, m.pixels, m.parts))
    located, masked, parted = map(int, there)
    true_count = 0 if m.true is None else len(m.true)
    return rank, located, masked, parted, int(m.dead), m.label, true_count, change_count


def _changes(m: Measured) -> F.Floats:
    if m.boxes is None or m.iou is None:
        return np.empty((0, COLUMNS))
    return changes(m.boxes, m.iou, m.iou_of_all)


def _whole(shares: F.Floats) -> F.Ints:
    """Shares (P, T) of [0, 1] in whole numbers; 0 for a part that is not shown."""
    return np.asarray(np.rint(np.nan_to_num(shares) * _WHOLE), dtype=np.int64)


def _shown(shares: F.Floats) -> F.Ints:
    """1 for each part (P,) that is shown, else 0."""
    return np.asarray(np.isfinite(shares).all(axis=1), dtype=np.int64)


def _stacked(rows: Sequence[F.Floats | None], width: int) -> F.Floats:
    table = np.zeros((len(rows), width))
    for i, row in enumerate(rows):
        if row is not None:
            table[i] = row
    return table


def _joined(state: list[Tensor]) -> NDArray[Any]:
    return _array(dim_zero_cat(state))


def _array(state: Tensor) -> NDArray[Any]:
    return np.asarray(state.cpu().numpy())


def _all_or_none(has: F.Bools, what: str) -> bool:
    if has.any() and not has.all():
        raise InputError(f"{np.count_nonzero(~has)} of {len(has)} images have no {what}")
    return bool(has.any())


def _hits(table: _Table, protocol: Protocol) -> dict[str, F.Ints]:
    """Images that are right at each threshold (T,), by curve."""
    if table.iou is None:
        return {}
    hits = {"gt_known_loc": _count(table.iou >= protocol.iou)}
    for percent in IOUS:
        hits[f"box_acc_{percent}"] = _count(table.iou >= percent / 100)
    if table.iou_of_all is not None:
        for percent in IOUS:
            hits[f"box_acc_v2_{percent}"] = _count(table.iou_of_all >= percent / 100)
    if table.rank is not None:
        right = table.iou > protocol.iou if protocol.strict_top else table.iou >= protocol.iou
        for name, k in TOP.items():
            if f"{name}_loc" in protocol.figures:
                hits[f"{name}_loc"] = _count(right[table.rank < k])
    return hits


def _count(right: F.Bools) -> F.Ints:
    return np.asarray(np.count_nonzero(right, axis=0))


def _oracle(hits: dict[str, F.Ints], objective: str) -> int:
    """First maximiser; a method without logits has no Top-1 to add to GT-known."""
    parts = [hits[name] for name in objective.split("+") if name in hits]
    return int(np.argmax(np.sum(parts, axis=0)))


def _single(percent: dict[str, F.Floats], index: int | None) -> dict[str, float]:
    """Figures read at one threshold."""
    if index is None:
        return {}
    return {name: float(percent[name][index]) for name in SINGLE_THRESHOLD if name in percent}


def _best(percent: dict[str, F.Floats]) -> dict[str, float]:
    """Figures at the best threshold of the evaluated split, in V2 each IoU's own."""
    best = {}
    if "gt_known_loc" in percent:
        best["max_box_acc"] = float(percent["gt_known_loc"].max())
    if "box_acc_v2_50" in percent:
        peaks = [percent[f"box_acc_v2_{iou}"].max() for iou in IOUS]
        best["max_box_acc_v2"] = float(np.mean(peaks))
    return best


def _pooled(table: _Table, pixels: dict[str, F.Floats]) -> dict[str, float]:
    """Figures without a threshold."""
    figures = {}
    if table.rank is not None:
        for name, k in TOP.items():
            right = np.count_nonzero(table.rank < k)
            figures[f"{name}_cls"] = 100.0 * float(right) / table.count
    if pixels:
        area = F.average_precision(pixels["pxap_precision"], pixels["pxap_recall"])
        figures["pxap"] = 100.0 * area
    return figures


def _part_curves(table: _Table, names: Sequence[str]) -> dict[str, F.Floats]:
    """Percentage of each part within the box, and the mean over the parts that any image shows."""
    if table.parts is None or not table.shown.any():
        return {}
    percent = {
        f"part_coverage_{name}": 100.0 * shares / (_WHOLE * count)
        for name, shares, count in zip(names, table.parts, table.shown.tolist(), strict=True)
        if count
    }
    return {"part_coverage": np.mean(list(percent.values()), axis=0), **percent}


def _pixel_curves(table: _Table) -> dict[str, F.Floats]:
    """Precision and recall in [0, 1]; none where no pixel shows an object."""
    if table.pixels is None:
        return {}
    precision, recall = F.precision_recall(table.pixels)
    return {"pxap_precision": precision, "pxap_recall": recall} if len(recall) else {}
