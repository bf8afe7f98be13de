"""Examples: the maps of a few test images, kept beside a record so that pictures can show them.

The images are chosen by nothing but their names, so that every method shows the same ones. Their
pixels are not kept: a picture takes them from the user's own copy of the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsolbench.arrays import UNREADABLE, pack, unpack
from wsolbench.errors import InputError
from wsolbench.metrics.functional import Map, is_dead
from wsolbench.metrics.scorer import to_array
from wsolbench.types import Prediction

#: images kept of each run
COUNT = 36
#: pixels of a side that a kept map may have
SIDE = 56


@dataclass(frozen=True, eq=False)
class Examples:
    """Maps by the names of their images.

    Attributes:
        maps: (h, w) uint8 of the method's own resolution, at most :data:`SIDE` a side, from 0 at
            the map's lowest value to 255 at its highest; 0 throughout for a dead map.
    """

    maps: dict[str, NDArray[np.uint8]]


def chosen(names: Iterable[str]) -> list[str]:
    """Return the images to keep: those whose names have the smallest SHA-256, at most COUNT."""
    return sorted(names, key=_order)[:COUNT]


def collect(stream: Iterable[tuple[tuple[str, ...], Prediction]]) -> Examples | None:
    """Take the maps of a stream of predictions; None from a method that gives none."""
    maps: dict[str, NDArray[np.uint8]] = {}
    for ids, prediction in stream:
        if prediction.maps is None:
            return None
        maps |= zip(ids, map(small_map, to_array(prediction.maps)), strict=True)
    return Examples(maps)


def small_map(native: Map) -> NDArray[np.uint8]:
    """Return a map (h, w) of any range as :class:`Examples` keeps it."""
    if is_dead(native):
        return np.zeros((1, 1), np.uint8)
    height, width = (min(side, SIDE) for side in native.shape)
    small: NDArray[Any] = native.astype(np.float64)
    small = small / np.abs(small).max()  # so that no range is too wide for its type
    if (height, width) != native.shape:
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    above = small - small.min()
    return np.asarray(np.rint(255 * above / (above.max() or 1.0)), dtype=np.uint8)


def to_bytes(examples: Examples) -> bytes:
    """Return the same bytes for the same maps, for :func:`from_bytes`."""
    return pack(dict(sorted(examples.maps.items())))


def from_bytes(content: bytes) -> Examples:
    """Read what :func:`to_bytes` has written.

    Raises:
        InputError: when it is no file of maps, or damaged.
    """
    try:
        return Examples({name: _checked(small) for name, small in unpack(content).items()})
    except UNREADABLE as error:
        raise InputError("it is no file of example maps, or damaged") from error


def _checked(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim != 2 or array.dtype != np.uint8 or not 0 < array.size <= SIDE**2:
        raise ValueError("not a small map")
    return array


def _order(image_id: str) -> str:
    return hashlib.sha256(f"wsolbench-example:{image_id}".encode()).hexdigest()
