"""Boxes of a map the literal way: one search a threshold, with the libraries the references use.

The tests hold the sweep to it, and it to the reference data; ``benchmarks/scoring.py`` times it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import label, regionprops

Array = NDArray[Any]


def contours(foreground: Array) -> Sequence[Array]:
    """All contours, those of holes included."""
    found, _ = cv2.findContours(foreground.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    return found


def contour_box(contour: Array) -> list[int]:
    """x, y, x + w, y + h."""
    x, y, width, height = cv2.boundingRect(contour)
    return [x, y, x + width, y + height]


def largest_contour_box(found: Sequence[Array]) -> list[int]:
    """Box of the first contour of largest area; empty where there is none."""
    return contour_box(max(found, key=cv2.contourArea)) if found else []


def component_box(foreground: Array) -> list[int]:
    """x, y, x + w, y + h of the component of most pixels; empty without foreground."""
    labels = label(foreground, connectivity=2)  # type: ignore[no-untyped-call]
    regions = regionprops(labels)  # type: ignore[no-untyped-call]
    if not regions:
        return []
    y0, x0, y1, x1 = max(regions, key=lambda region: region.area).bbox
    return [x0, y0, x1, y1]


def clipped(boxes: Array, shape: tuple[int, ...]) -> Array:
    """Boxes with their far corners in the map."""
    height, width = shape
    return np.minimum(boxes, [[width, height, width - 1, height - 1]])


def part_share(part: Array, box: Array) -> float:
    """Share of a part's pixels (h, w) in a box, both of whose corners belong to it."""
    x0, y0, x1, y1 = box
    y, x = np.nonzero(part)
    return float(np.mean((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)))


def pixel_counts(score: Array, covered: Array, counted: Array, edges: Array) -> Array:
    """Object and background pixels (2, bins) that count, by half-open bins of score."""
    bins = np.searchsorted(edges, score[counted], side="right") - 1
    is_object = covered[counted]
    sides = (bins[is_object], bins[~is_object])
    return np.stack([np.bincount(side, minlength=len(edges) - 1) for side in sides])


def best_iou(boxes: Array, truth: Array) -> float:
    """Best IoU of any box with any true one, pair by pair; both corners belong to a box."""
    best = 0.0
    for x0, y0, x1, y1 in np.asarray(boxes, np.float64):
        for left, top, right, bottom in np.asarray(truth, np.float64):
            width = min(x1, right) - max(x0, left) + 1
            height = min(y1, bottom) - max(y0, top) + 1
            if width > 0 and height > 0:
                area = (x1 - x0 + 1) * (y1 - y0 + 1)
                true = (right - left + 1) * (bottom - top + 1)
                best = max(best, width * height / (area + true - width * height))
    return best
