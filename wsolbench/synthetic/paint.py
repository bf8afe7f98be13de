"""From a scene to its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsolbench.synthetic.birds import Part, parts, pattern
from wsolbench.synthetic.scene import SIDE, Scene
from wsolbench.synthetic.shapes import Floats, Placement, Window

#: cells a side of the three layers of clouds, and their weights
_CLOUDS = ((4, 0.5), (9, 0.3), (24, 0.2))
_GRAIN = 7.0


def paint(scene: Scene) -> NDArray[np.uint8]:
    """The picture (SIDE, SIDE, 3) of a scene."""
    bits = np.random.PCG64(scene.noise)
    canvas = _background(scene, bits)
    for thing in scene.behind:
        _lay(canvas, thing.part, thing.placement)
    for bird in scene.birds:
        for part in parts(bird):
            _lay(canvas, part, bird.placement)
    for thing in scene.front:
        _lay(canvas, thing.part, thing.placement)
    grain = _uniform(bits, SIDE * SIDE).reshape(SIDE, SIDE, 1)
    return np.asarray(np.clip(canvas + _GRAIN * (2 * grain - 1), 0, 255).astype(np.uint8))


def _lay(canvas: Floats, part: Part, placement: Placement) -> None:
    """Paint a part with its pattern, lit from above."""
    window = Window.around(placement, part.bounds(), SIDE)
    u, v = placement.local(*window.centers())
    covered = part.covers(u, v)
    second = pattern(part.coat.pattern, u, v)[..., None]
    color = np.where(second, np.array(part.coat.second), np.array(part.coat.first))
    light = np.clip(1.02 - 0.55 * v, 0.72, 1.2)[..., None]
    view = canvas[window.slices]
    view[covered] = (color * light)[covered]


def _background(scene: Scene, bits: np.random.PCG64) -> Floats:
    clouds = np.zeros((SIDE, SIDE))
    for cells, weight in _CLOUDS:
        clouds += weight * _stretched(_uniform(bits, (cells + 1) ** 2).reshape(cells + 1, -1))
    first, second = (np.array(color) for color in scene.ground)
    return np.asarray(first + (second - first) * clouds[..., None])


def _stretched(grid: Floats) -> Floats:
    """Bilinear interpolation of a grid (n + 1, n + 1) to the picture's side."""
    position = (np.arange(SIDE) + 0.5) * ((len(grid) - 1) / SIDE)
    low = position.astype(np.int64)
    share = position - low
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, low + 1] * share)


def _uniform(bits: np.random.PCG64, count: int) -> Floats:
    """Numbers in [0, 1) from the generator's raw output, which no version of numpy changes."""
    return np.asarray((bits.random_raw(count) >> np.uint64(40)).astype(np.float64) / 2**24)
