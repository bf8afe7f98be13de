"""From a scene to what is true of it: exact masks. Nothing that trains may import this."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsolbench.synthetic.birds import Bird, parts
from wsolbench.synthetic.scene import SIDE, Scene
from wsolbench.synthetic.shapes import Window


def part_map(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Which bird and which part each pixel shows.

    Returns:
        two arrays (SIDE, SIDE), 0 where no bird is seen: the bird's number and the part's number,
        both from 1.
    """
    birds = np.zeros((SIDE, SIDE), np.uint8)
    kinds = np.zeros((SIDE, SIDE), np.uint8)
    for number, bird in enumerate(scene.birds, start=1):
        _lay(birds, kinds, bird, number)
    for thing in scene.front:
        window = Window.around(thing.placement, thing.part.bounds(), SIDE)
        hidden = thing.part.covers(*thing.placement.local(*window.centers()))
        birds[window.slices][hidden] = 0
        kinds[window.slices][hidden] = 0
    return birds, kinds


def _lay(birds: NDArray[np.uint8], kinds: NDArray[np.uint8], bird: Bird, number: int) -> None:
    for part in parts(bird):
        window = Window.around(bird.placement, part.bounds(), SIDE)
        covered = part.covers(*bird.placement.local(*window.centers()))
        birds[window.slices][covered] = number
        kinds[window.slices][covered] = part.index + 1
