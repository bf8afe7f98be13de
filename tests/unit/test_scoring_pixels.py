"""The compiled pixel counts against the same in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scoring_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scoring_maps import KINDS, random_map, random_shape

from wsolbench.metrics import functional as F

Array = NDArray[Any]

_STEPS = (0.001, 0.01, 0.1, 0.3, 0.7, 1 / 3, 1 / 49, 1.0)


def _assert_exact(score: Array, covered: Array, counted: Array, step: float) -> None:
    thresholds = F.threshold_values(step)
    found = F.pixel_counts(score, covered, counted, thresholds)
    expected = oracle.pixel_counts(score, covered, counted, F.bin_edges(thresholds))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64
    assert found.sum() == np.count_nonzero(counted)


def _at_edges(values: Array, step: float, rng: np.random.Generator) -> Array:
    """Half of the values put on an edge of a bin, or a hair beside it."""
    edges = F.bin_edges(F.threshold_values(step)).astype(values.dtype)
    on = edges[rng.integers(0, np.count_nonzero(edges <= 1), values.shape)]
    beside = np.nextafter(on, rng.integers(-1, 3, values.shape).astype(values.dtype))
    on = np.where(rng.random(values.shape) < 0.3, np.clip(beside, 0, 2), on)
    return np.where(rng.random(values.shape) < 0.5, on, values)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 2**32),
    st.sampled_from(_STEPS),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_map_and_masks(
    kind: str, seed: int, step: float, dtype: type, shown: float, ignored: float
) -> None:
    rng = np.random.default_rng(seed)
    height, width = random_shape(rng, 40)
    score = _at_edges(random_map(kind, rng, height, width).astype(dtype), step, rng)
    covered = rng.random(score.shape) < shown
    counted = covered | (rng.random(score.shape) >= ignored)
    _assert_exact(score, covered, counted, step)


def test_a_dead_map_has_all_its_pixels_in_the_lowest_bin() -> None:
    covered = np.eye(224, dtype=np.bool_)
    for score in (np.zeros((224, 224)), np.full((224, 224), -0.0, np.float32)):
        _assert_exact(score, covered, np.ones_like(covered), 0.001)


def test_a_score_beyond_the_bins_is_refused_where_it_counts() -> None:
    covered, counted = np.zeros((2, 3), np.bool_), np.ones((2, 3), np.bool_)
    for bad in (np.nan, -1e-9, 3.0, np.inf):
        score = np.full((2, 3), 0.5)
        score[1, 2] = bad
        with pytest.raises(ValueError, match="beyond the bins"):
            F.pixel_counts(score, covered, counted, F.threshold_values(0.001))
        uncounted = counted & np.isin(score, [0.5])
        _assert_exact(score, covered, uncounted, 0.001)
