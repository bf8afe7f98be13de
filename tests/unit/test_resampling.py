"""Intervals cover what they should, and the paired test is wrong as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from wsolbench.metrics.resampling import difference_interval, interval, paired_p

TRIALS = 300


def covered(trials: int, seeds: int, between: float) -> float:
    """Share of intervals that hold the true mean of runs whose seeds differ by ``between``."""
    draw, hits = np.random.default_rng(seeds), 0
    for _ in range(trials):
        easy = draw.beta(2, 1, 200)  # how easy each image is, for all seeds
        chance = np.clip(easy + draw.normal(0, between, (seeds, 1)), 0, 1)
        low, high = interval((draw.random(chance.shape) < chance).astype(float))
        hits += low <= 100 * 2 / 3 <= high
    return hits / trials


def test_the_interval_over_images_covers() -> None:
    assert 0.92 <= covered(TRIALS, 1, 0.0) <= 0.98


def test_the_interval_over_images_and_seeds_covers() -> None:
    # Clipping moves the mean by less than the interval's width; few seeds make it too narrow.
    assert 0.85 <= covered(TRIALS, 5, 0.05) <= 0.99
    values = np.random.default_rng(0).random((5, 200)) < np.linspace(0.4, 0.8, 5)[:, None]
    low, high = interval(values.astype(float))
    over_images = interval(values.astype(float).mean(axis=0)[None])
    assert high - low > 3 * (over_images.high - over_images.low)


def test_the_interval_is_that_of_the_binomial() -> None:
    values = (np.arange(1000) < 700).astype(float)[None]
    low, high = interval(values)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.7) / 10
    np.testing.assert_allclose([low, high], expected, atol=0.2)


def test_neither_the_order_of_images_nor_a_second_call_changes_a_digit() -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(0, 4, (3, 150)) / 3
    shuffled = values[:, draw.permutation(150)]
    assert interval(values) == interval(shuffled) == interval(values)
    assert difference_interval(values[:1], values[1:]) == difference_interval(
        shuffled[:1], shuffled[1:]
    )
    difference = values[0] - values[1]
    assert paired_p(difference) == paired_p(difference[::-1])


def test_an_interval_stays_within_what_can_be() -> None:
    """The draw of seeds is added to that of images, which could lead past the end."""
    seeds = np.array([[0.0] * 9 + [1.0], [1.0] * 10, [1.0] * 10])
    assert interval(seeds).high == 100
    assert interval(1 - seeds).low == 0
    assert difference_interval(seeds, np.zeros((3, 10))).high == 100


def exchangeable(draw: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Two runs that are right by the same chance at each image, hard ones and easy ones alike."""
    chance = draw.beta(0.5, 0.3, 150)
    a, b = (draw.random((2, seeds, 150)) < chance).astype(float)
    return a, b


@pytest.mark.parametrize("seeds", [1, 3])
def test_alike_runs_are_told_apart_one_time_in_twenty(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    p = np.array(
        [paired_p(np.subtract(*exchangeable(draw, seeds)).mean(axis=0)) for _ in range(TRIALS)]
    )
    limit = stats.binom.ppf(0.999, TRIALS, 0.05) / TRIALS
    assert (p <= 0.05).mean() <= limit
    assert (p <= 0.5).mean() <= stats.binom.ppf(0.999, TRIALS, 0.5) / TRIALS
    assert (p <= 0.05).mean() > 0.01  # it is no test that never speaks


def test_one_run_each_is_mcnemars_test() -> None:
    for ahead, behind in ((30, 10), (12, 10), (5, 0), (0, 0)):
        difference = np.repeat([1.0, -1.0, 0.0], [ahead, behind, 100])
        exact = stats.binomtest(ahead, ahead + behind).pvalue if ahead + behind else 1.0
        assert paired_p(difference) == pytest.approx(exact, abs=0.015)


def test_pairs_tell_apart_what_means_alone_do_not() -> None:
    hard = np.random.default_rng(0).random(400) < 0.5
    a, b = hard.astype(float), hard.copy()
    b[np.flatnonzero(hard)[:12]] = False
    low, high = difference_interval(a[None], b.astype(float)[None])
    assert 0 < low < 3 < high
    assert paired_p(a - b) < 0.01
    alone = interval(a[None])
    assert alone.low < 100 * b.mean() < alone.high
