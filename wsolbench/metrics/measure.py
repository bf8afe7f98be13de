"""What is measured of one image: a pure function of its map, its truth and the protocol.

Nothing here keeps state or touches tensors, so images can be measured in any process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.protocol import Protocol
from wsolbench.types import Truth


@dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of one image over the T thresholds of a protocol.

    Attributes:
        iou: (T,) best IoU of the predicted box with a true box; None where there is either not.
        iou_of_all: (T,) the same over all candidate boxes; None also where no figure needs it.
        pixels: (2, T + 2) counts of object and background pixels per bin; None without map or mask.
        parts: (P, T) share of each part's pixels within the predicted box, NaN for a part that the
            image does not show; None where there is no IoU or the parts are not known.
        rank: number of classes that the classifier puts before the true one; None without logits.
        dead: the map is constant, or NaN or infinite somewhere.
        boxes: (T, 4) predicted box at each threshold, in the frame; None where there is no IoU.
        true: (n, 4) true boxes in the frame; None where there is no IoU.
        image_id, label: those of the truth.
    """

    iou: F.Floats | None = None
    iou_of_all: F.Floats | None = None
    pixels: F.Ints | None = None
    parts: F.Floats | None = None
    rank: int | None = None
    dead: bool = False
    boxes: NDArray[Any] | None = None
    true: F.Floats | None = None
    image_id: str = ""
    label: int = 0


def measure(
    truth: Truth,
    protocol: Protocol,
    score_map: F.Map | None,
    box: F.Map | None,
    logits: F.Map | None,
    input_size: int,
    part_count: int,
) -> Measured:
    """Measure what a method says of one image.

    Args:
        truth: what is true of the image.
        protocol: how to measure.
        score_map: native map (h, w) of any range, or None.
        box: the method's own box (4,) in pixels of the square input, or None.
        logits: (K,) or None.
        input_size: side of the input in pixels.
        part_count: P, how many parts the dataset names.

    Raises:
        InputError: when there are fewer classes in the logits than the label says.
    """
    measured = Measured()
    if score_map is not None:
        measured = _measure_map(score_map, truth, protocol, part_count)
    elif box is not None:
        measured = _measure_box(box, input_size, truth, protocol, part_count)
    rank = None if logits is None else _rank(logits, truth.label)
    return replace(measured, rank=rank, image_id=truth.image_id, label=truth.label)


def _rank(logits: F.Map, label: int) -> int:
    if label >= len(logits):
        raise InputError(f"an image is of class {label}, but the logits are of {len(logits)}")
    return F.class_rank(logits, label)


def _measure_map(native: F.Map, truth: Truth, protocol: Protocol, part_count: int) -> Measured:
    score, levels = F.protocol_map(native, protocol)
    thresholds = F.threshold_values(protocol.thresholds)
    measured = Measured(dead=F.is_dead(native))
    if truth.instance_masks and "pxap" in protocol.figures:
        covered, counted = F.pixel_truth(truth, protocol.geometry.frame)
        pixels = F.pixel_counts(score, covered, counted, thresholds)
        measured = replace(measured, pixels=pixels)
    if not len(truth.boxes):
        return measured
    true = _true_boxes(truth, protocol)
    of_all = "max_box_acc_v2" in protocol.figures
    boxes, iou, iou_of_all = F.best_iou(levels, thresholds, protocol.box, true, of_all)
    parts = _measure_parts(boxes, truth, protocol, part_count)
    return replace(measured, iou=iou, iou_of_all=iou_of_all, parts=parts, boxes=boxes, true=true)


def _measure_box(
    box: F.Map, input_size: int, truth: Truth, protocol: Protocol, part_count: int
) -> Measured:
    """The same box at all thresholds."""
    if not len(truth.boxes):
        return Measured()
    given = F.given_box(box, input_size, protocol.geometry.frame, protocol.box)
    true = _true_boxes(truth, protocol)
    boxes = np.repeat(given, len(F.threshold_values(protocol.thresholds)), axis=0)
    iou = F.box_iou(boxes, true).max(axis=1)
    parts = _measure_parts(boxes, truth, protocol, part_count)
    of_all = iou if "max_box_acc_v2" in protocol.figures else None
    return Measured(iou=iou, iou_of_all=of_all, parts=parts, boxes=boxes, true=true)


def _true_boxes(truth: Truth, protocol: Protocol) -> F.Floats:
    size, geometry = truth.size, protocol.geometry
    return F.true_boxes(truth.boxes, size, geometry, protocol.truth, sized=truth.sized)


def _measure_parts(
    boxes: NDArray[Any], truth: Truth, protocol: Protocol, part_count: int
) -> F.Floats | None:
    if truth.parts is None or "part_coverage" not in protocol.figures:
        return None
    return F.part_coverage(F.nearest(truth.parts, protocol.geometry.frame), boxes, part_count)
