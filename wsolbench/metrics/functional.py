"""From score maps to boxes, overlaps and pixel counts: pure functions over arrays.

Every choice comes from the rules of a protocol (:mod:`wsolbench.protocol`). The conventions are
those of the public evaluators of Choe et al. 2020, TS-CAM and SAT: boxes are x0, y0, x1, y1,
overlaps count both corners (width = x1 - x0 + 1), and predicted boxes end one past the last pixel.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsolbench.metrics import pixels, sweep
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
_NO_BOXES = np.empty((0, 4))


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
        return _resize(normalized(score, rule), frame, interpolation)
    return normalized(_resize(score, frame, interpolation), rule)


def quantized(score: Map) -> NDArray[np.uint8]:
    """Truncate 255 times a map in [0, 1] to 8 bits."""
    levels = np.empty(score.shape, np.uint8)
    return np.multiply(score, 255, out=levels, casting="unsafe")  # truncates, in one pass


def _resize(score: Map, frame: int, interpolation: int) -> Map:
    return np.asarray(cv2.resize(score, (frame, frame), interpolation=interpolation))


def normalized(score: Map, rule: MapRule) -> Map:
    """Bring a finite map (h, w) to [0, 1] as the rule says, zeros where that has no answer.

    ``percentile`` is that of Bae et al. 2020 (their 0.9), ``above-percentile`` that of Kim et al.
    2021. Where the percentile is the minimum, ``percentile`` takes the limit: 1 above it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if rule.normalization == "min-max":
            return _scaled(score - score.min(), rule.epsilon)
        if rule.normalization == "max":
            return _scaled(np.maximum(score, 0), 0.0)
        (q,) = rule.percentiles()
        at = np.partition(score, int(score.size * q), axis=None)[int(score.size * q)]
        if rule.normalization == "above-percentile":
            return _scaled(np.maximum(score - at, 0), 0.0)
        shifted, top = score - score.min(), at - score.min()
        if top > 0:
            return np.minimum(_scaled(np.minimum(shifted, top), 0.0), 1)
        return np.asarray(shifted > 0, dtype=score.dtype)


def _scaled(shifted: Map, epsilon: float) -> Map:
    """A map from 0 up, by its highest value."""
    with np.errstate(over="ignore", invalid="ignore"):
        span = shifted.max() + shifted.dtype.type(epsilon)
    # A range past the largest float, or one that the resizing flattened, has no normal form.
    if not (np.isfinite(span) and span > 0):
        return np.zeros_like(shifted)
    return np.asarray(np.divide(shifted, span, out=shifted))


# --------------------------------------------------------------------------------------- boxes


def threshold_values(thresholds: tuple[float, ...] | float) -> Floats:
    """Thresholds (T,): the list itself, or ``numpy.arange(0, 1, step)``."""
    if isinstance(thresholds, tuple):
        return np.array(thresholds, dtype=np.float64)
    return np.arange(0, 1, thresholds, dtype=np.float64)


def largest_boxes(score: Map, thresholds: Floats, rule: BoxRule) -> Ints:
    """Box (T, 4) of a map's largest region at each threshold.

    Args:
        score: map (h, w) of uint8 levels (``relative``) or float32 scores (``absolute``).
        thresholds: (T,) in [0, 1).
        rule: what is foreground, which region is the largest and how its box is clipped.
    """
    levels, of_threshold = _levels(score, thresholds, rule)
    if rule.region == "largest-component":
        boxes = sweep.largest_components(_kept(score, levels))
    else:
        ranks = _ranks(score, levels)
        boxes, _ = sweep.contours(ranks, len(levels), _NO_BOXES, np.zeros(2, np.int64))
    return _answered(boxes, score, levels, rule)[of_threshold]


def best_iou(
    score: Map, thresholds: Floats, rule: BoxRule, truth: Floats, of_all: bool
) -> tuple[Ints, Floats, Floats | None]:
    """Box (T, 4) of a map's largest region at each threshold, and best IoU with any true box.

    Args:
        score: as in :func:`largest_boxes`, like ``thresholds`` and ``rule``.
        thresholds: (T,) in [0, 1).
        rule: what is foreground and which regions become boxes.
        truth: true boxes (n, 4), at least one.
        of_all: whether to look at the boxes of all contours, those of holes included.

    Returns:
        Box of the largest region; its best IoU (T,); and the best one (T,) of any contour's box,
        if asked for.
    """
    if not of_all or rule.region == "largest-component":
        boxes = largest_boxes(score, thresholds, rule)
        best = box_iou(boxes, truth).max(axis=1)
        return boxes, best, best if of_all else None
    levels, at = _levels(score, thresholds, rule)
    height, width = score.shape
    far = np.array([width, height]) - int(rule.clip)
    ranks, truth = _ranks(score, levels), np.ascontiguousarray(truth)
    boxes, best_of_all = sweep.contours(ranks, len(levels), truth, far)
    boxes = _answered(boxes, score, levels, rule)
    best = box_iou(boxes, truth).max(axis=1)
    empty = _first_empty(score, levels)
    best_of_all[empty:] = best[empty:]
    return boxes[at], best[at], best_of_all[at]


def _levels(score: Map, thresholds: Floats, rule: BoxRule) -> tuple[NDArray[Any], Ints]:
    """The G distinct levels that a map is cut at, ascending, and which is each threshold's (T,).

    1000 thresholds cut an 8-bit map in at most 255 ways. A cut keeps what is above its level.
    """
    if rule.threshold == "relative":
        levels = np.trunc(thresholds * int(score.max())).astype(np.uint8)
    else:
        levels = thresholds.astype(np.float32)
    return np.unique(levels, return_inverse=True)


def _first_empty(score: Map, levels: NDArray[Any]) -> int:
    """First of the ascending levels that nothing is above, or their number."""
    return int(np.searchsorted(levels, score.max()))


def _kept(score: Map, levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Which pixels each cut keeps (G, h, w), the width filled up to a multiple of eight."""
    height, width = score.shape
    kept = np.zeros((len(levels), height, -(-width // 8) * 8), np.uint8)
    for cut, level in zip(kept.view(np.bool_), levels, strict=True):
        np.greater(score, level, out=cut[:, :width])
    return kept


def _ranks(score: Map, levels: NDArray[Any]) -> sweep.Ranks:
    """How many of the ascending ``levels`` are below each pixel."""
    if score.dtype == np.uint8:  # of 256 levels at most 255 are below a pixel
        below = np.searchsorted(levels, np.arange(256)).astype(np.uint8)
        return np.asarray(cv2.LUT(score, below), np.uint8)
    ranks = np.zeros(score.shape, np.uint16)
    for level in levels:
        ranks += score > level
    return ranks


def _answered(boxes: Ints, score: Map, levels: NDArray[Any], rule: BoxRule) -> Ints:
    """Boxes (G, 4) as the rule has them: clipped, and its own where nothing is kept."""
    height, width = score.shape
    boxes[_first_empty(score, levels) :] = _own_box(height, width, rule)
    return _clipped(boxes, height, width, rule)


def empty_box(side: int, rule: BoxRule) -> Floats:
    """The box (4,) that a map (side, side) gets of which nothing is kept."""
    found = np.array([_own_box(side, side, rule)], np.float64)
    return np.asarray(_clipped(found, side, side, rule)[0])


def _own_box(height: int, width: int, rule: BoxRule) -> tuple[int, int, int, int]:
    return 0, 0, *{"zero": (0, 0), "unit": (1, 1), "whole": (width, height)}[rule.empty]


def _clipped(boxes: NDArray[Any], height: int, width: int, rule: BoxRule) -> NDArray[Any]:
    if rule.clip:
        boxes[:, _FAR] = np.minimum(boxes[:, _FAR], [width - 1, height - 1])
    return boxes


def given_box(box: Floats, input_size: int, frame: int, rule: BoxRule) -> Floats:
    """Bring a method's own box (4,) from pixels of the input to the frame (1, 4), clipped."""
    scaled = np.array(box, dtype=np.float64)[None] * frame / input_size
    return _clipped(scaled, frame, frame, rule)


def true_boxes(
    boxes: Floats,
    size: tuple[int, int],
    geometry: Geometry,
    rule: TruthRule,
    *,
    sized: bool = False,
) -> Floats:
    """Bring true boxes (n, 4) of an image of ``size`` (width, height) into the frame, truncated.

    A box outside the crop comes out inverted; it overlaps nothing, and its image still counts.
    ``sized`` says whether the dataset gives the boxes by width and height.
    """
    side, margin = _side_and_margin(geometry)
    if sized and rule.clip_sized:
        boxes = np.minimum(boxes, [np.inf, np.inf, size[0] - 1, size[1] - 1])
    scaled = boxes * side / np.array([*size, *size], dtype=np.float64) - margin
    if rule.clip_frame == "both":
        scaled[:, _NEAR] = np.maximum(scaled[:, _NEAR], 0)
    if rule.clip_frame != "none":
        scaled[:, _FAR] = np.minimum(scaled[:, _FAR], geometry.frame - 1)
    return np.asarray(np.trunc(scaled))


def image_boxes(boxes: Floats, size: tuple[int, int], geometry: Geometry) -> Floats:
    """Bring boxes (..., 4) from the frame to an image of ``size`` (width, height); not clipped."""
    side, margin = _side_and_margin(geometry)
    return np.asarray((boxes + margin) * np.array([*size, *size], dtype=np.float64) / side)


def _side_and_margin(geometry: Geometry) -> tuple[int, int]:
    """Side to which images are resized, and what the frame cuts off each edge, in its pixels."""
    side = geometry.resize if geometry.mode == "crop" else geometry.frame
    return side, (side - geometry.frame) // 2


def box_iou(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Intersection over union (m, n) of boxes (m, 4) and (n, 4), see :func:`paired_iou`."""
    return paired_iou(np.asarray(a)[:, None], np.asarray(b)[None])


def paired_iou(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Intersection over union (...) of boxes (..., 4) and (..., 4), both corners inclusive.

    Boxes that do not overlap, inverted ones and boxes of NaN have IoU 0.
    """
    overlap = paired_overlap(a, b)
    union = box_area(a) + box_area(b) - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0))


def paired_overlap(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Intersection (...) in pixels of boxes (..., 4) and (..., 4), both corners inclusive."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    sides = np.minimum(a[..., _FAR], b[..., _FAR]) - np.maximum(a[..., _NEAR], b[..., _NEAR]) + 1
    sides = np.maximum(sides, 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def box_area(boxes: NDArray[Any]) -> Floats:
    """Area (...) in pixels of boxes (..., 4), both corners inclusive."""
    boxes = np.asarray(boxes, np.float64)
    sides = boxes[..., _FAR] - boxes[..., _NEAR] + 1
    return np.asarray(sides[..., 0] * sides[..., 1])


# -------------------------------------------------------------------------------------- pixels


def pixel_truth(truth: Truth, frame: int) -> tuple[Bools, Bools]:
    """Object pixels and pixels that count, both (frame, frame).

    Each mask is resized to the nearest pixel, instances are joined, and an ignored pixel still
    counts where an instance covers it.
    """
    covered = np.zeros((frame, frame), dtype=np.bool_)
    for mask in truth.instance_masks:
        covered |= _nearest_mask(mask, frame)
    if truth.ignore_mask is None:
        return covered, np.ones_like(covered)
    return covered, covered | ~_nearest_mask(truth.ignore_mask, frame)


def _nearest_mask(mask: Bools, frame: int) -> Bools:
    return nearest(np.ascontiguousarray(mask).view(np.uint8), frame).astype(np.bool_)


def nearest(pixels: NDArray[np.uint8], frame: int) -> NDArray[np.uint8]:
    """Resize masks or parts (H, W) to (frame, frame) by the nearest pixel."""
    return np.asarray(cv2.resize(pixels, (frame, frame), interpolation=cv2.INTER_NEAREST))


def part_coverage(parts: NDArray[np.uint8], boxes: NDArray[Any], count: int) -> Floats:
    """Share of each part's pixels within each box.

    A pixel (x, y) is within a box where x0 <= x <= x1 and y0 <= y <= y1: both corners belong to it,
    as they do to overlaps. A predicted box, which ends one past the last pixel unless the frame
    does, so has one more column and row than its region; and one of the whole frame holds every
    pixel under either rule of clipping.

    Args:
        parts: part of each pixel (frame, frame), 1 to ``count``, 0 for none.
        boxes: (T, 4) in the frame, whole pixels or not; a box of NaN holds nothing.
        count: number of parts P.

    Returns:
        (P, T) in [0, 1]; NaN for a part without pixels.
    """
    shares = np.full((count, len(boxes)), np.nan)
    corners = _inner_corners(boxes, len(parts))
    for part in range(count):
        # Element (y, x) is the sum over all pixels above and left of (x, y).
        sums = cv2.integral((parts == part + 1).view(np.uint8)).ravel()
        if sums[-1]:
            below, right, left, above = sums[corners]
            shares[part] = (below - right - left + above) / sums[-1]
    return shares


def _inner_corners(boxes: NDArray[Any], frame: int) -> Ints:
    """Places (4, T) of the corners of boxes (T, 4) in a flat integral image of the frame."""
    first = np.ceil(np.nan_to_num(boxes[:, _NEAR], nan=np.inf)).clip(0, frame)
    last = np.floor(np.nan_to_num(boxes[:, _FAR], nan=-np.inf))
    end = (last + 1).clip(first, frame)
    (x0, y0), (x1, y1) = first.T.astype(np.int64), end.T.astype(np.int64)
    return np.asarray(np.stack([y1, y0, y1, y0]) * (frame + 1) + np.stack([x1, x1, x0, x0]))


def bin_edges(thresholds: Floats) -> Floats:
    """Edges (T + 3,) of the half-open bins of pixel scores: the thresholds, then 1, 2 and 3."""
    return np.append(thresholds, [1.0, 2.0, 3.0])


def pixel_counts(score: Map, covered: Bools, counted: Bools, thresholds: Floats) -> Ints:
    """Count the pixels of a normalised map (frame, frame) in each bin of score.

    Returns:
        (2, T + 2) int64: object pixels, then background pixels, of those that count.
    """
    return pixels.histogram(score, covered, counted, bin_edges(thresholds))


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
    starts, ends = _runs_of_maximum(values)
    longest = int(np.argmax(ends - starts))
    return int(starts[longest] + ends[longest] - 1) // 2


def longest_run_of_maximum(values: Ints) -> int:
    """Length of the longest run of maximisers of ``values`` (T,)."""
    starts, ends = _runs_of_maximum(values)
    return int((ends - starts).max())


def _runs_of_maximum(values: Ints) -> tuple[Ints, Ints]:
    at_maximum = np.concatenate([[False], values == values.max(), [False]])
    starts, ends = np.flatnonzero(np.diff(at_maximum)).reshape(-1, 2).T
    return starts, ends


def protocol_map(native: Map, protocol: Protocol) -> tuple[Map, Map]:
    """The normalised map (frame, frame) and what its boxes are found in (levels, or itself)."""
    score = normalized_map(native, protocol.map, protocol.geometry.frame)
    return score, quantized(score) if protocol.map.quantize else score
