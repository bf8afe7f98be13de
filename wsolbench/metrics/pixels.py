"""Pixels of a map counted by score, object and background apart; compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsolbench.metrics.compiling import compiled

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@compiled
def _bin(value: float, edges: Floats, scale: float) -> int:
    """Half-open bin of a value: a guess by the first bin's width, put right by the edges."""
    if not edges[0] <= value < edges[-1]:  # negated, so that a NaN fails too
        raise ValueError("a pixel's score is beyond the bins")
    found = min(int((value - edges[0]) * scale), len(edges) - 2)
    while value < edges[found]:
        found -= 1
    while value >= edges[found + 1]:
        found += 1
    return found


@compiled
def histogram(score: NDArray[Any], covered: Bools, counted: Bools, edges: Floats) -> Ints:
    """Count the pixels of a map in each bin of score, in one pass.

    Args:
        score: (h, w) float32 or float64, all of it in the bins.
        covered: (h, w) pixels that show an object.
        counted: (h, w) pixels that count.
        edges: (bins + 1,) ascending; fast where all but a few are one step apart.

    Returns:
        (2, bins): object pixels, then background pixels, of those that count.

    Raises:
        ValueError: when a score that counts is in no bin.
    """
    height, width = score.shape
    counts = np.zeros((2, len(edges) - 1), np.int64)
    scale = 1 / (edges[1] - edges[0])
    for y in range(height):
        for x in range(width):
            if counted[y, x]:
                side = 0 if covered[y, x] else 1
                counts[side, _bin(float(score[y, x]), edges, scale)] += 1
    return counts
