"""From score maps to boxes, overlaps and pixel counts: pure functions over arrays.

Every choice comes from the rules of a protocol (:mod:`wsolbench.protocol`). The conventions are
those of the public evaluators of Choe et al. 2020, TS-CAM and SAT: boxes are x0, y0, x1, y1,
overlaps count both corners (width = x1 - x0 + 1), and predicted boxes end one past the last pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as label_regions

from wsolbench.protocol import BoxRule, Geometry, MapRule, Protocol, TruthRule
from wsolbench.types import Truth

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
#: float32, float64 or uint8, as the map rule says
Map = NDArray[Any]

_INTERPOLATION = {"cubic": (cv2.INTER_CUBIC, np.float64), "linear": (cv2.INTER_LINEAR, np.float32)}
_FAR = slice(2, 4)
_NEAR = slice(0, 2)


# ---------------------------------------------------------------------------------------- maps


def is_dead(native: Map) -> bool:
    """Whether a native map (h, w) says nothing: constant, or NaN or infinite anywhere."""
    return not bool(np.isfinite(native).all()) or bool(native.min() == native.max())


def normalized_map(native: Map, rule: MapRule, frame: int) -> Map:
    """Bring a native score map (h, w) of any range to (frame, frame) in [0, 1].

    Returns:
        float64 (``cubic``) or float32 (``linear``), not quantised; all zeros for a dead map. The
        references leave that case to the platform's conversion of NaN; zeros are what they get on
        x86-64, and what leads each protocol to its own box for a map without foreground.
    """
    interpolation, dtype = _INTERPOLATION[rule.interpolation]
    score = np.ascontiguousarray(native, dtype=dtype)
    if is_dead(score):
        return np.zeros((frame, frame), dtype)
    if rule.order == "normalize-resize":
        return _resize(_min_max(score, rule.epsilon), frame, interpolation)
    return _min_max(_resize(score, frame, interpolation), rule.epsilon)


def quantized(score: Map) -> NDArray[np.uint8]:
    """Truncate 255 times a map in [0, 1] to 8 bits."""
    return (255 * score).astype(np.uint8)


def _resize(score: Map, frame: int, interpolation: int) -> Map:
    return np.asarray(cv2.resize(score, (frame, frame), interpolation=interpolation))


def _min_max(score: Map, epsilon: float) -> Map:
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = score - score.min()
        span = shifted.max() + score.dtype.type(epsilon)
    # A range past the largest float, or one that the resizing flattened, has no normal form.
    if not (np.isfinite(span) and span > 0):
        return np.zeros_like(score)
    return np.asarray(shifted / span)


# --------------------------------------------------------------------------------------- boxes


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes of one map at all thresholds; thresholds with equal foreground share a group.

    Attributes:
        boxes: (M, 4) int64, the boxes of group 0, then of group 1, ...; no group is empty.
        starts: (G,) row of each group's first box.
        largest: (G,) row of each group's largest region.
        group: (T,) group of each threshold.
    """

    boxes: Ints
    starts: Ints
    largest: Ints
    group: Ints


def threshold_values(thresholds: tuple[float, ...] | float) -> Floats:
    """Thresholds (T,): the list itself, or ``numpy.arange(0, 1, step)``."""
    if isinstance(thresholds, tuple):
        return np.array(thresholds, dtype=np.float64)
    return np.arange(0, 1, thresholds, dtype=np.float64)


def candidate_boxes(score: Map, thresholds: Floats, rule: BoxRule) -> Candidates:
    """Find the boxes of a map (frame, frame) at each threshold.

    Regions are found once per distinct foreground: 1000 thresholds cut an 8-bit map in at most 255
    ways.

    Args:
        score: uint8 levels (``relative``) or float32 scores (``absolute``).
        thresholds: (T,) in [0, 1).
        rule: what is foreground, which regions become boxes and how they are clipped.
    """
    levels, group = _distinct_levels(score, thresholds, rule)
    regions = _contours if rule.region == "largest-contour" else _largest_component
    found = [regions(score > level) for level in levels]
    frame = score.shape[0]
    groups = [boxes if len(boxes) else _empty(frame, rule) for boxes, _ in found]
    starts = np.cumsum([0, *map(len, groups)], dtype=np.int64)[:-1]
    largest = starts + np.array([row for _, row in found], dtype=np.int64)
    return Candidates(_clipped(np.concatenate(groups), frame, rule), starts, largest, group)


def _distinct_levels(score: Map, thresholds: Floats, rule: BoxRule) -> tuple[Map, Ints]:
    """Levels (G,) that give different foregrounds, and the group (T,) of each threshold."""
    if rule.threshold == "absolute":
        return thresholds.astype(np.float32), np.arange(len(thresholds))
    levels = np.trunc(thresholds * int(score.max())).astype(np.uint8)
    present = np.flatnonzero(np.bincount(score.ravel(), minlength=256))
    # Two levels with no pixel's value between them have the same foreground.
    below = np.searchsorted(present, levels, side="right")
    _, first, group = np.unique(below, return_index=True, return_inverse=True)
    return levels[first], group


def _contours(foreground: Bools) -> tuple[Ints, int]:
    """Boxes (m, 4) of all contours, those of holes included, and the row of the largest polygon.

    Of equal areas the first in OpenCV's order wins, as in the references.
    """
    contours, _ = cv2.findContours(
        foreground.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE
    )
    rectangles = np.array([cv2.boundingRect(c) for c in contours], dtype=np.int64).reshape(-1, 4)
    rectangles[:, _FAR] += rectangles[:, _NEAR]
    areas = [cv2.contourArea(c) for c in contours]
    return rectangles, areas.index(max(areas)) if areas else 0


def _largest_component(foreground: Bools) -> tuple[Ints, int]:
    """Box (1, 4) of the 8-connected component of most pixels, of equals the first in raster order.

    Empty (0, 4) without foreground.
    """
    labels = label_regions(foreground, connectivity=2)  # type: ignore[no-untyped-call]
    sizes = np.bincount(labels.ravel())[1:]
    if not len(sizes):
        return np.empty((0, 4), np.int64), 0
    region = labels == 1 + int(np.argmax(sizes))
    x, y = np.flatnonzero(region.any(axis=0)), np.flatnonzero(region.any(axis=1))
    return np.array([[x[0], y[0], x[-1] + 1, y[-1] + 1]], dtype=np.int64), 0


def _clipped(boxes: NDArray[Any], frame: int, rule: BoxRule) -> NDArray[Any]:
    if rule.clip:
        boxes[:, _FAR] = np.minimum(boxes[:, _FAR], frame - 1)
    return boxes


def _empty(frame: int, rule: BoxRule) -> Ints:
    corner = {"zero": 0, "unit": 1, "whole": frame}[rule.empty]
    return np.array([[0, 0, corner, corner]], dtype=np.int64)


def given_box(box: Floats, input_size: int, frame: int, rule: BoxRule) -> Floats:
    """Bring a method's own box (4,) from pixels of the input to the frame (1, 4), clipped."""
    scaled = np.array(box, dtype=np.float64)[None] * frame / input_size
    return _clipped(scaled, frame, rule)


def true_boxes(boxes: Floats, size: tuple[int, int], geometry: Geometry, rule: TruthRule) -> Floats:
    """Bring true boxes (n, 4) of an image of ``size`` (width, height) into the frame, truncated.

    A box outside the crop comes out inverted; it overlaps nothing, and its image still counts.
    """
    cropped = geometry.mode == "crop"
    side = geometry.resize if cropped else geometry.frame
    margin = (side - geometry.frame) // 2
    scaled = boxes * side / np.array([*size, *size], dtype=np.float64) - margin
    if rule.clip_frame == "both":
        scaled[:, _NEAR] = np.maximum(scaled[:, _NEAR], 0)
    if rule.clip_frame != "none":
        scaled[:, _FAR] = np.minimum(scaled[:, _FAR], geometry.frame - 1)
    return np.asarray(np.trunc(scaled))


def box_iou(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Intersection over union (m, n) of boxes (m, 4) and (n, 4), both corners inclusive.

    Boxes that do not overlap, inverted ones and boxes of NaN have IoU 0.
    """
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    sides = np.minimum(a[..., _FAR], b[..., _FAR]) - np.maximum(a[..., _NEAR], b[..., _NEAR]) + 1
    overlap = np.prod(np.maximum(sides, 0), axis=-1)
    union = _area(a) + _area(b) - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0))


def _area(boxes: Floats) -> Floats:
    return np.asarray(np.prod(boxes[..., _FAR] - boxes[..., _NEAR] + 1, axis=-1))


def best_iou(candidates: Candidates, truth: Floats) -> Floats:
    """Best IoU (T,) over the true boxes (n, 4) of the largest region's box at each threshold."""
    best = box_iou(candidates.boxes[candidates.largest], truth).max(axis=1)
    return np.asarray(best[candidates.group])


def best_iou_of_all(candidates: Candidates, truth: Floats) -> Floats:
    """Best IoU (T,) over all candidate boxes and the true boxes (n, 4) at each threshold."""
    best = box_iou(candidates.boxes, truth).max(axis=1)
    return np.asarray(np.maximum.reduceat(best, candidates.starts)[candidates.group])


# -------------------------------------------------------------------------------------- pixels


def pixel_truth(truth: Truth, frame: int) -> tuple[Bools, Bools]:
    """Object pixels and pixels that count, both (frame, frame).

    Each mask is resized to the nearest pixel, instances are joined, and an ignored pixel still
    counts where an instance covers it.
    """
    covered = np.zeros((frame, frame), dtype=np.bool_)
    for mask in truth.instance_masks:
        covered |= _nearest(mask, frame)
    if truth.ignore_mask is None:
        return covered, np.ones_like(covered)
    return covered, covered | ~_nearest(truth.ignore_mask, frame)


def _nearest(mask: Bools, frame: int) -> Bools:
    source = np.ascontiguousarray(mask).view(np.uint8)
    resized = cv2.resize(source, (frame, frame), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized).astype(np.bool_)


def bin_edges(thresholds: Floats) -> Floats:
    """Edges (T + 3,) of the half-open bins of pixel scores: the thresholds, then 1, 2 and 3."""
    return np.append(thresholds, [1.0, 2.0, 3.0])


def pixel_counts(score: Map, covered: Bools, counted: Bools, thresholds: Floats) -> Ints:
    """Count the pixels of a normalised map (frame, frame) in each bin of score.

    Returns:
        (2, T + 2) int64: object pixels, then background pixels, of those that count.
    """
    edges = bin_edges(thresholds)
    bins = np.searchsorted(edges, score[counted], side="right") - 1
    is_object = covered[counted]
    return np.stack(
        [np.bincount(bins[side], minlength=len(edges) - 1) for side in (is_object, ~is_object)]
    ).astype(np.int64)


def precision_recall(counts: Ints) -> tuple[Floats, Floats]:
    """Precision and recall, both from the highest bin down, of pooled counts (2, bins).

    Bins above the first pixel are left out, so that precision is defined everywhere. Both are empty
    without object pixels.
    """
    true, false = np.cumsum(counts[:, ::-1], axis=1)
    started = (true + false) > 0
    if true[-1] == 0:
        return np.empty(0), np.empty(0)
    return true[started] / (true + false)[started], true[started] / true[-1]


def average_precision(precision: Floats, recall: Floats) -> float:
    """Area under a precision-recall curve by steps of recall, not interpolated; in [0, 1]."""
    return float(np.sum(precision * np.diff(recall, prepend=0.0)))


# ------------------------------------------------------------------------- classes, thresholds


def class_rank(logits: NDArray[Any], label: int) -> int:
    """How many classes of ``logits`` (K,) come before the true one.

    Of equal logits the smaller index comes first, so a classifier that says the same of all classes
    has the true one first in one class only. A NaN at the true class puts it last.
    """
    true = logits[label]
    if np.isnan(true):
        return len(logits)
    before = (logits > true) | np.isnan(logits)
    before[:label] |= logits[:label] == true
    return int(np.count_nonzero(before))


def middle_of_longest_run(values: Ints) -> int:
    """Index of the middle of the longest run of maximisers of ``values`` (T,).

    Of equally long runs the first is taken, of two middles the lower one: the choice of a threshold
    that stands farthest from where the figure drops.
    """
    at_maximum = np.concatenate([[False], values == values.max(), [False]])
    starts, ends = np.flatnonzero(np.diff(at_maximum)).reshape(-1, 2).T
    longest = int(np.argmax(ends - starts))
    return int(starts[longest] + ends[longest] - 1) // 2


def protocol_map(native: Map, protocol: Protocol) -> tuple[Map, Map]:
    """The normalised map (frame, frame) and what its boxes are found in (levels, or itself)."""
    score = normalized_map(native, protocol.map, protocol.geometry.frame)
    return score, quantized(score) if protocol.map.quantize else score
