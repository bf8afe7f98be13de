"""The photographs behind a gallery: from the user's own copy of the data, never from a record."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsolbench.data.images import read_image
from wsolbench.data.transforms import eval_side, eval_view
from wsolbench.dataset import Dataset, Sample
from wsolbench.errors import InputError
from wsolbench.protocol import load_protocol
from wsolbench.registry import DATASETS
from wsolbench.results import Result

#: side of a picture in pixels
SIDE = 168
_QUALITY = 80
#: the colours of a map from its lowest to its highest value: matplotlib's "inferno"
_HEAT = ((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21))
_HEAT_END = ((250, 193, 39), (252, 255, 164))
#: values of a map that its picture tells apart
_LEVELS = 32

#: which pictures a page may show
Allowed = Literal["all", "free", "none"]


@dataclass(frozen=True)
class Picture:
    """One image as a method saw it, and the shape that it has.

    Attributes:
        pixels: (SIDE, SIDE, 3) uint8, the frame of the protocol.
        ratio: width over height at which it looks right.
        title: name of its class.
    """

    pixels: NDArray[np.uint8]
    ratio: float
    title: str


@dataclass(frozen=True)
class Album:
    """Pictures by the names of their images.

    Attributes:
        free: whether they may be handed on.
        why: why there are none; "" where there are.
    """

    pictures: dict[str, Picture] = field(default_factory=dict)
    free: bool = True
    why: str = ""


def album(result: Result, names: Sequence[str], root: Path, allowed: Allowed) -> Album:
    """Read the pictures that a record's method saw, where the data are at hand and may be shown.

    Args:
        result: says which dataset and protocol.
        names: the images.
        root: folder that contains the datasets' own.
        allowed: which pictures may be shown.
    """
    title = result.dataset.title
    if allowed == "none":
        return Album(why=f"Without the pictures of {title}, as asked.")
    try:
        cls = DATASETS.get(result.recipe.dataset)
        if allowed == "free" and not cls.free:
            return Album(why=f"Without the pictures of {title}: their terms keep them private.")
        dataset = cls(root, result.recipe.holdout)
        if dataset.fingerprint() != result.dataset.fingerprint:
            return Album(why=f"Without pictures: the {title} at hand is not that of the records.")
        return _read(dataset, result, names)
    except InputError as error:
        return Album(why=f"Without the pictures of {title}: {error}")


def _read(dataset: Dataset, result: Result, names: Sequence[str]) -> Album:
    by_name = {sample.image_id: sample for sample in dataset.samples("test")}
    pictures = {name: _picture(dataset, by_name[name], result) for name in names if name in by_name}
    return Album(pictures, free=dataset.free)


def _picture(dataset: Dataset, sample: Sample, result: Result) -> Picture:
    geometry = load_protocol(result.protocol.name).geometry
    pixels = read_image(sample.path)
    height, width = pixels.shape[:2]
    view = eval_view(pixels, eval_side(geometry, SIDE), SIDE)
    ratio = width / height if geometry.mode == "direct" else 1.0
    return Picture(view, ratio, dataset.class_names[sample.label])


def jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    """Return pixels (H, W, 3) as the address of a JPEG in a page."""
    return _uri(Image.fromarray(pixels), "jpeg", quality=_QUALITY, optimize=True)


def heat_uri(small: NDArray[np.uint8]) -> str:
    """Return a map (h, w) as the address of a coloured PNG in a page."""
    image = Image.fromarray(small // (256 // _LEVELS), mode="P")
    image.putpalette(heat_colours(_LEVELS).ravel().tolist())
    return _uri(image, "png", optimize=True)


def heat_colours(count: int) -> NDArray[np.uint8]:
    """Return colours (count, 3) from the lowest to the highest value of a map."""
    anchors = np.array([*_HEAT, *_HEAT_END], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(places, np.arange(len(anchors)), channel) for channel in anchors.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), dtype=np.uint8)


def _uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
