"""How sure a figure is: bootstrap intervals and paired tests over per-image values.

Draws are seeded, and images with the same values are drawn together, so that the cost does not grow
with their number and their order changes no digit.
"""

from __future__ import annotations

from math import fsum
from typing import NamedTuple

import numpy as np

from wsolbench.metrics import functional as F

RESAMPLES = 2000
FLIPS = 9999
CONFIDENCE = 0.95
_SEED = 0


class Interval(NamedTuple):
    """A 95% interval, in percent."""

    low: float
    high: float


def interval(values: F.Floats) -> Interval:
    """Bootstrap interval of the mean of per-image values.

    Images are drawn with replacement, the same for all seeds. Of S seeds S - 1 are drawn, which
    makes the spread of their mean unbiased (Rao and Wu 1988); still few seeds tell little, and the
    interval of two or three is too narrow. One seed says nothing of others: its interval is over
    images alone.

    Args:
        values: (S, N) in [0, 1], how right each seed's run is at each image.
    """
    rng = np.random.default_rng(_SEED)
    drawn = _images(values, rng).mean(axis=1) + _seeds(_means(values), rng)
    return _percentiles(drawn, lowest=0)


def difference_interval(a: F.Floats, b: F.Floats) -> Interval:
    """Bootstrap interval of how far ``a`` (S, N) is ahead of ``b`` (Z, N) on the same images.

    Images are drawn the same for both, seeds apart: a seed of one has nothing to do with the same
    seed of the other.
    """
    rng = np.random.default_rng(_SEED)
    means = _images(np.concatenate([a, b]), rng)
    ahead = means[:, : len(a)].mean(axis=1) - means[:, len(a) :].mean(axis=1)
    return _percentiles(ahead + _seeds(_means(a), rng) - _seeds(_means(b), rng), lowest=-1)


def paired_p(difference: F.Floats) -> float:
    """Two-sided p-value of a paired test: random signs of the images' differences (N,).

    Where two runs are alike, an image may as well have had their answers the other way round. The
    test speaks of these runs; what other seeds would have given is no part of it.
    """
    sizes, counts = np.unique(np.abs(difference).round(9), return_counts=True)
    sizes, counts = sizes[sizes > 0], counts[sizes > 0]
    heads = np.random.default_rng(_SEED).binomial(counts, 0.5, (FLIPS, len(counts)))
    sums = np.abs((2 * heads - counts) @ sizes)
    as_far = np.count_nonzero(sums >= abs(difference.sum()) - 1e-6)
    return float((1 + as_far) / (1 + FLIPS))


def _images(values: F.Floats, rng: np.random.Generator) -> F.Floats:
    """Means (RESAMPLES, S) of values (S, N) over images drawn with replacement."""
    patterns, counts = np.unique(values.round(9), axis=1, return_counts=True)
    images = values.shape[1]
    drawn = rng.multinomial(images, counts / images, RESAMPLES)
    return np.asarray(drawn @ patterns.T / images)


def _means(values: F.Floats) -> F.Floats:
    """Mean (S,) of each seed, summed without rounding so that the order changes no digit."""
    return np.array([fsum(row) / len(row) for row in values.tolist()])


def _seeds(means: F.Floats, rng: np.random.Generator) -> F.Floats:
    """How far (RESAMPLES,) the mean of drawn seeds is from that of all (S,)."""
    count = len(means)
    if count == 1:
        return np.zeros(RESAMPLES)
    drawn = rng.integers(0, count, (RESAMPLES, count - 1))
    return np.asarray(means[drawn].mean(axis=1) - means.mean())


def _percentiles(means: F.Floats, lowest: float) -> Interval:
    """Their interval, within what a mean or difference can be: seeds are added to images."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(100 * means.clip(lowest, 1), [tail, 1 - tail])
    return Interval(float(low), float(high))
