"""The two image regimes: random crop and flip for training, a fixed view for evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsolbench.data.images import resize_image
from wsolbench.errors import InputError
from wsolbench.protocol import Geometry


@dataclass(frozen=True, eq=False)
class EpochDraws:
    """Everything random that one epoch's images meet; indexed by image, not by position.

    Attributes:
        order: (n,) int64 permutation of the images.
        corner: (n, 2) int64 top and left of each image's crop, pixels of the resized image.
        flip: (n,) bool, mirror the crop left to right.
    """

    order: Tensor
    corner: Tensor
    flip: Tensor


class Places(NamedTuple):
    """A piece of a training, by place.

    Attributes:
        image: (n,) int64 index of the image at each place.
        corner: (n, 2) int64 top and left of its crop, pixels of the resized image.
        flip: (n,) bool, mirror the crop left to right.
    """

    image: Tensor
    corner: Tensor
    flip: Tensor


def draw_places(seed: int, places: range, count: int, slack: int, flip: float) -> Places:
    """Draw a piece of the endless row of epochs 1, 2, ... of ``count`` images each.

    Args:
        places: places in the row, from 0.
        slack, flip: see :func:`draw_epoch`.
    """
    first, last = places.start // count, (places.stop - 1) // count
    epochs = [draw_epoch(seed, e + 1, count, slack, flip) for e in range(first, last + 1)]
    cut = slice(places.start - first * count, places.stop - first * count)
    return Places(
        image=torch.cat([e.order for e in epochs])[cut],
        corner=torch.cat([e.corner[e.order] for e in epochs])[cut],
        flip=torch.cat([e.flip[e.order] for e in epochs])[cut],
    )


def draw_epoch(seed: int, epoch: int, count: int, slack: int, flip: float) -> EpochDraws:
    """Draw order, crops and flips of one epoch of ``count`` images on the CPU.

    Args:
        slack: resized side less crop side, pixels; corners are uniform in 0...slack.
        flip: probability of a flip.
    """
    # hashed, so that (0, 1) and (1, 0) or neighbouring seeds share no stream
    digest = hashlib.sha256(f"wsolbench-train:{seed}:{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return EpochDraws(
        order=torch.randperm(count, generator=generator),
        corner=torch.randint(0, slack + 1, (count, 2), generator=generator),
        flip=torch.rand(count, generator=generator) < flip,
    )


def to_planes(images: Tensor) -> Tensor:
    """Turn decoded pixels (B, H, W, 3) into contiguous planes (B, 3, H, W)."""
    return images.permute(0, 3, 1, 2).contiguous()


def crop_flip(planes: Tensor, corner: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop (B, 3, R, R) to (B, 3, size, size) at each image's corner, and mirror some.

    Args:
        corner: (B, 2) int64 top and left, pixels.
        flip: (B,) bool.
    """
    # a view of all crops there are: choosing among them copies whole rows, not single pixels
    windows = planes.unfold(2, size, 1).unfold(3, size, 1)
    batch = torch.arange(len(planes), device=planes.device)
    crops = windows[batch, :, corner[:, 0], corner[:, 1]]
    return torch.where(flip[:, None, None, None], crops.flip(3), crops)


def crop_flip_boxes(boxes: Tensor, corner: Tensor, flip: bool, size: int) -> Tensor:
    """Bring boxes to the crop that :func:`crop_flip` takes of their image; nothing is clipped.

    Args:
        boxes: (n, 4) x0, y0, x1, y1 in pixels of the resized image.
        corner: (2,) top and left of the crop, pixels.
        flip: mirror the crop left to right.
        size: side of the crop, pixels.
    """
    x0, y0, x1, y1 = (boxes - corner.flip(0).repeat(2)).unbind(1)
    if flip:
        x0, x1 = size - x1, size - x0
    return torch.stack([x0, y0, x1, y1], dim=1)


def normalize(planes: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn uint8 (B, 3, H, W) into float32 of that shape: x / 255, less mean, over std."""
    x = planes.to(torch.float32).div_(255)
    shift, scale = (_constant(tuple(values), x.device) for values in (mean, std))
    return x.sub_(shift).div_(scale)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value a channel, made once: an accelerator waits for each copy of such a tensor."""
    with torch.inference_mode(False):  # training uses it too, whoever asks first
        return torch.tensor(values, device=device).view(1, -1, 1, 1)


def eval_side(geometry: Geometry, input_size: int) -> int:
    """Return the side in pixels to which an image is resized before a possible centre crop.

    Raises:
        InputError: when the geometry's crop is larger than what it is cut from.
    """
    if geometry.mode == "direct":
        return input_size
    side = round(input_size * geometry.resize / geometry.frame)
    if side < input_size:
        raise InputError(
            f"geometry resizes to {geometry.resize} and crops {geometry.frame}; "
            "resize must be at least the frame"
        )
    return side


def eval_view(pixels: NDArray[np.uint8], side: int, input_size: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to ``side`` square and take the centre ``input_size`` square."""
    resized = resize_image(pixels, (side, side))
    # torchvision's CenterCrop rounds half a pixel to even
    start = round((side - input_size) / 2)
    return resized[start : start + input_size, start : start + input_size]
