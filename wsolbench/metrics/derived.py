"""What derives from the table of a run without scoring it again: figures, and why images fail."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from wsolbench.metrics import functional as F
from wsolbench.metrics.image_table import ImageTable
from wsolbench.metrics.scorer import IOUS, TOP
from wsolbench.protocol import Figure

#: kinds of answers, decided in this order (Gao et al. 2021)
KINDS = ("right", "wrong class", "several instances", "part", "more", "wrong")
#: upper ends of the classes of size: share of the frame that the largest true box fills
SIZES = (0.1, 0.25, 0.5, 1.0)

_SEVERAL, _PART, _MORE = 0.3, 0.5, 0.7


def hits(table: ImageTable, figure: Figure, threshold: float | None) -> F.Bools | None:
    """Whether each image is right in a figure.

    Args:
        table: of the run.
        figure: by its name.
        threshold: where the figures of a single threshold are read; None where there is none.

    Returns:
        (K, N): the figure is the mean of K shares of right images, 3 in MaxBoxAccV2, else 1. A
        figure of the best threshold is read there. None for one that does not derive from the
        table, or has no threshold.
    """
    if figure == "max_box_acc":
        return _at_best(table, table.iou, [table.facts.iou])
    if figure == "max_box_acc_v2":
        wanted = [percent / 100 for percent in IOUS]
        return _at_best(table, table.iou_of_all, wanted) if table.facts.of_all else None
    name, _, kind = figure.partition("_")
    if kind == "cls":
        return (table.rank < TOP[name])[None] if table.facts.ranked else None
    if threshold is None:
        return None
    iou = table.iou[table.at(level(table, threshold))]
    if figure == "gt_known_loc":
        return (iou >= table.facts.iou)[None]
    if name in TOP and table.facts.ranked:
        right = iou > table.facts.iou if table.facts.strict_top else iou >= table.facts.iou
        return (right & (table.rank < TOP[name]))[None]
    return None


def figure_of(right: F.Bools) -> float:
    """Percentage of right images (K, N), the very number that scoring gave."""
    return float(np.mean([100.0 * int(np.count_nonzero(row)) / right.shape[1] for row in right]))


def figures_without(
    table: ImageTable, figures: Iterable[Figure], threshold: float | None, images: Collection[str]
) -> dict[Figure, float]:
    """Figures of the images that are not among ``images``; those that derive from the table."""
    kept = np.flatnonzero([name not in images for name in table.image_id])
    if not len(kept):
        return {}
    rest = table.taken(kept)
    right = {figure: hits(rest, figure, threshold) for figure in figures}
    return {figure: figure_of(found) for figure, found in right.items() if found is not None}


def level(table: ImageTable, threshold: float) -> int:
    """Number of a threshold, which a record has to six decimals."""
    return int(np.argmin(np.abs(table.thresholds - threshold)))


def best_level(table: ImageTable) -> int:
    """Number of the threshold at which most boxes are right (the first of several)."""
    return int(np.argmax(table.counts(table.iou >= table.facts.iou)))


def surface(table: ImageTable, ious: Sequence[float]) -> F.Floats:
    """Percentage (len(ious), T) of boxes that reach an IoU, at each threshold."""
    return np.stack([100.0 * table.counts(table.iou >= iou) / len(table) for iou in ious])


def area(table: ImageTable) -> float:
    """Area under the surface over all IoUs in [0, 1], mean over the thresholds, in percent.

    The share of images that reach an IoU, integrated over the IoU, is the mean IoU: no grid of IoUs
    is needed.
    """
    length = table.spans[:, 1] - table.spans[:, 0]
    return float(100.0 * (table.iou @ length) / (len(table) * len(table.thresholds)))


def mean_iou(table: ImageTable, index: int) -> float:
    """Mean IoU in percent of the boxes at a threshold."""
    return float(100.0 * table.iou[table.at(index)].mean())


def sizes(table: ImageTable) -> F.Ints:
    """Class of size (N,) of each image's largest true box, a place in :data:`SIZES`."""
    shares = np.nanmax(F.box_area(table.true_by_place), axis=1) / table.facts.frame**2
    return np.asarray(np.searchsorted(SIZES[:-1], shares), np.int64)


def by_class(table: ImageTable, values: F.Floats) -> list[tuple[int, int, float]]:
    """Class, images and mean of per-image values (N,) in percent, for each class with images."""
    means = []
    for label in np.unique(table.label).tolist():
        members = values[table.label == label]
        means.append((int(label), len(members), float(100.0 * members.mean())))
    return means


def kinds(table: ImageTable, index: int) -> F.Ints:
    """Kind of answer (N,) of each image at a threshold, a place in :data:`KINDS`.

    With P the predicted box and g the true box it overlaps best: ``wrong class``, where the
    classifier's first class is not the true one (never without classifier); ``right``, where the
    IoU is above that of the protocol; ``several instances``, where P holds more than 0.3 of more
    than one true box; ``part``, where more than half of P is in g; ``more``, where P holds at least
    0.7 of g; else ``wrong``. The IoU must be exceeded, so this ``right`` may be below Top-1 Loc.
    """
    boxes, true = table.box(index)[:, None], table.true_by_place
    iou, overlap = F.paired_iou(boxes, true), F.paired_overlap(boxes, true)
    of_true = overlap / F.box_area(true)
    best = np.arange(len(table)), iou.argmax(axis=1)
    cases = {
        "wrong class": table.rank >= 1,
        "right": iou[best] > table.facts.iou,
        "several instances": np.count_nonzero(of_true > _SEVERAL, axis=1) > 1,
        "part": overlap[best] > _PART * F.box_area(boxes)[:, 0],
        "more": of_true[best] >= _MORE,
    }
    numbers = [KINDS.index(kind) for kind in cases]
    return np.select(list(cases.values()), numbers, KINDS.index("wrong"))


def _at_best(table: ImageTable, iou: F.Floats, wanted: Sequence[float]) -> NDArray[np.bool_]:
    rows = []
    for least in wanted:
        right = iou >= least
        rows.append(right[table.at(int(np.argmax(table.counts(right))))])
    return np.stack(rows)
