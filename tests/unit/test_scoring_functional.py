"""Maps, boxes and choices on inputs that the reference data do not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scoring_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from wsolbench.metrics import functional as F
from wsolbench.protocol import load_protocol, protocol_names

Array = NDArray[Any]

#: few values, so that plateaus, rings, lines and gaps between levels are common
_LEVELS = arrays(np.uint8, (9, 9), elements=st.sampled_from([0, 1, 2, 100, 101, 200, 254, 255]))
_SCORES = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 3e38, -3e38, 1e-45]),
)
_TRUE = np.array([[1.0, 1, 5, 6], [4, 3, 8, 8], [7, 7, 7, 7]])


def _literal(levels: Array, threshold: float) -> tuple[Array, ...]:
    """All boxes at one threshold, and the largest polygon's alone, as the reference words it."""
    found = oracle.contours(levels > int(threshold * int(levels.max())))
    boxes = [oracle.contour_box(contour) for contour in found] or [[0, 0, 0, 0]]
    largest = oracle.largest_contour_box(found) or [0, 0, 0, 0]
    return tuple(oracle.clipped(np.array(some), levels.shape) for some in (boxes, [largest]))


@settings(max_examples=25, deadline=None)
@given(_LEVELS)
def test_distinct_levels_give_what_a_thousand_thresholds_give(levels: Array) -> None:
    thresholds, rule = F.threshold_values(0.001), load_protocol("standard").box
    found, best, best_of_all = F.best_iou(levels, thresholds, rule, _TRUE, of_all=True)
    assert best_of_all is not None
    np.testing.assert_array_equal(found, F.largest_boxes(levels, thresholds, rule))
    for i, threshold in enumerate(thresholds):
        boxes, winner = _literal(levels, float(threshold))
        np.testing.assert_array_equal(found[i], winner[0])
        assert best[i] == oracle.best_iou(winner, _TRUE)
        assert best_of_all[i] == oracle.best_iou(boxes, _TRUE)


@pytest.mark.parametrize("name", protocol_names())
@settings(max_examples=40, deadline=None)
@given(native=_SCORES, data=st.data())
def test_any_map_is_normalised_and_boxed(name: str, native: Array, data: st.DataObject) -> None:
    protocol = data.draw(st.sampled_from(load_protocol(name).candidates()))
    score, levels = F.protocol_map(native, protocol)
    assert np.isfinite(score).all()
    assert score.min() >= 0
    assert score.max() <= 1 + 1e-6
    thresholds = F.threshold_values(protocol.thresholds)[::50]
    found = F.largest_boxes(levels, thresholds, protocol.box)
    if F.is_dead(native):
        far = {"zero": 0, "unit": 1, "whole": 224}[protocol.box.empty]
        assert (found == [0, 0, far, far]).all()


def test_a_constant_that_rounding_would_ripple_is_still_constant() -> None:
    for value in (0.1, 1 / 3, 1e-30, 12345.678):
        score = F.normalized_map(np.full((7, 5), value), load_protocol("standard").map, 224)
        assert not score.any()


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([0, 3, 3, 3, 0], 2),
        ([3, 0, 3, 3, 0], 2),  # the lower of two middles
        ([0, 3, 3, 0, 3, 3], 1),  # the first of equal runs
        ([3, 0, 0, 3, 3, 3], 4),  # the longest run, not the first
        ([0, 0, 0, 0, 0], 2),
        ([1], 0),
    ],
)
def test_middle_of_longest_run(values: list[int], index: int) -> None:
    assert F.middle_of_longest_run(np.array(values)) == index


@pytest.mark.parametrize(
    ("logits", "label", "rank"),
    [
        ([0.1, 0.9, 0.5], 2, 1),
        ([1.0, 1.0, 1.0], 0, 0),  # equal logits: the smaller index comes first
        ([1.0, 1.0, 1.0], 2, 2),
        ([np.nan, 0.0, 1.0], 2, 1),
        ([0.0, np.nan, 1.0], 1, 3),  # no figure is earned by NaN
        ([np.inf, 0.0, np.inf], 2, 1),
    ],
)
def test_class_rank(logits: list[float], label: int, rank: int) -> None:
    assert F.class_rank(np.array(logits), label) == rank


def test_iou_counts_both_corners_and_survives_degenerate_boxes() -> None:
    a = np.array([[0, 0, 9, 9], [5, 5, 2, 2], [np.nan, 0, 9, 9]])
    iou = F.box_iou(a, np.array([[0.0, 0, 9, 4], [9, 9, 9, 9]]))
    np.testing.assert_array_equal(iou, [[0.5, 0.01], [0, 0], [0, 0]])
