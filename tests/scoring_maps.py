"""Maps of every kind that a contour search may meet, from a seed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

KINDS = (
    "smooth",
    "noisy",
    "sparse",
    "ripple",
    "plateaus",
    "constant",
    "rings",
    "nested",
    "lines",
    "checkerboard",
    "diagonals",
    "borders",
    "twins",
    "spiral",
)


def random_shape(rng: np.random.Generator, largest: int) -> tuple[int, int]:
    """Height and width in 1..largest, small ones and lines often."""
    height, width = (int(side) for side in np.exp(rng.uniform(0, np.log(largest + 1), 2)))
    return (
        (1, width)
        if rng.random() < 0.05
        else (height, 1)
        if rng.random() < 0.05
        else (height, width)
    )


def random_map(kind: str, rng: np.random.Generator, height: int, width: int) -> Array:
    """A map (height, width) of ``kind``, float64 in [0, 1]."""
    values = _MAKERS[kind](rng, height, width).astype(np.float64)
    values -= values.min()
    return np.asarray(values / max(float(values.max()), 1e-12))


def random_levels(values: Array, rng: np.random.Generator) -> Array:
    """``values`` as uint8, of two levels up to all."""
    count = int(rng.choice([2, 3, 5, 16, 256]))
    levels = np.sort(rng.choice(256, count, replace=False))
    ranks = np.minimum(values * count, count - 1).astype(int)
    return np.asarray(levels[ranks], dtype=np.uint8)


def _grid(height: int, width: int) -> tuple[Array, Array]:
    y, x = np.mgrid[:height, :width]
    return y, x


def _smooth(rng: np.random.Generator, height: int, width: int) -> Array:
    side = int(rng.integers(2, 15))
    return np.asarray(
        cv2.resize(rng.random((side, side)), (width, height), interpolation=cv2.INTER_CUBIC)
    )


def _noisy(rng: np.random.Generator, height: int, width: int) -> Array:
    return rng.random((height, width))


def _sparse(rng: np.random.Generator, height: int, width: int) -> Array:
    """Single pixels and specks: areas of zero, and ties."""
    return rng.random((height, width)) * (rng.random((height, width)) < rng.uniform(0.02, 0.6))


def _ripple(rng: np.random.Generator, height: int, width: int) -> Array:
    return _smooth(rng, height, width) + rng.uniform(0, 0.3) * rng.random((height, width))


def _plateaus(rng: np.random.Generator, height: int, width: int) -> Array:
    values = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 12))):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        h, w = (int(side) for side in rng.integers(1, 1 + max(2, max(height, width) // 2), 2))
        values[y : y + h, x : x + w] = int(rng.integers(5))
    return values


def _constant(rng: np.random.Generator, height: int, width: int) -> Array:
    return np.full((height, width), float(rng.integers(2)))


def _rings(rng: np.random.Generator, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    values = np.zeros((height, width))
    for _ in range(int(rng.integers(1, 5))):
        far = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
        radius = rng.uniform(1, max(height, width))
        values = np.maximum(values, (np.abs(far - radius) < rng.uniform(0.3, 3)) * rng.random())
    return values


def _nested(rng: np.random.Generator, height: int, width: int) -> Array:
    """Frames within frames, gaps of the same or of falling level between them."""
    y, x = _grid(height, width)
    depth = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))
    rungs = rng.integers(0, 6, int(depth.max()) + 1)
    return np.asarray(rungs[depth] + (rng.random((height, width)) < 0.02))


def _lines(rng: np.random.Generator, height: int, width: int) -> Array:
    values = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, 12))):
        ends = rng.integers(0, [width, height, width, height]).tolist()
        cv2.line(values, ends[:2], ends[2:], int(rng.integers(1, 6)), 1)
    return values


def _checkerboard(rng: np.random.Generator, height: int, width: int) -> Array:
    y, x = _grid(height, width)
    step = int(rng.integers(1, 4))
    board = (y // step + x // step) % 2
    return np.asarray(board + rng.integers(0, 3, (height, width)) * (rng.random() < 0.5))


def _diagonals(rng: np.random.Generator, height: int, width: int) -> Array:
    """Blocks that touch at corners only, some of them closing a hole."""
    y, x = _grid(height, width)
    period = int(rng.integers(2, 7))
    values = ((x + y) % period == 0) | ((x - y) % (period + 1) == 0)
    return np.asarray(values * rng.integers(1, 4, (height, width)))


def _borders(rng: np.random.Generator, height: int, width: int) -> Array:
    values = 0.2 * rng.random((height, width))
    for edge in (values[0], values[-1], values[:, 0], values[:, -1]):
        if rng.random() < 0.5:
            edge += rng.random()
    return values


def _twins(rng: np.random.Generator, height: int, width: int) -> Array:
    """Copies of one patch, each raised or not: equal areas that grow by turns."""
    side = int(rng.integers(2, 9))
    patch = rng.integers(0, 4, (side, side))
    tiles = np.tile(patch, (height // side + 1, width // side + 1))[:height, :width]
    y, x = _grid(height, width)
    raised = rng.integers(0, 2, (height // side + 1, width // side + 1))
    return np.asarray(tiles + raised[y // side, x // side])


def _spiral(rng: np.random.Generator, height: int, width: int) -> Array:
    """Two arms round each other, whose boxes are alike and say nothing of their areas."""
    y, x = _grid(height, width)
    y, x = y - height / 2, x - width / 2
    turn = np.arctan2(y, x) / np.pi + np.hypot(y, x) / rng.uniform(2, 8)
    return np.asarray(np.abs(turn % 2 - 1) + rng.uniform(0, 0.6) * rng.random((height, width)))


_MAKERS = {kind: globals()[f"_{kind}"] for kind in KINDS}
