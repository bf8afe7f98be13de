"""Image files to RGB pixels, whatever the file's mode, and the one resize in use."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsolbench.errors import InputError, one_line

#: what Pillow raises for a damaged file, by format; UnidentifiedImageError is an OSError
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 3) of an image file as RGB uint8, as they are stored.

    Grey, palette and CMYK images are converted, an alpha channel is dropped, and of 16-bit values
    the high byte is kept. The EXIF orientation is not applied: the boxes and masks of the datasets
    refer to stored pixels, and an image turned under its box is wrong without any error.

    Raises:
        InputError: when the file is missing or cannot be decoded to its end.
    """
    return _decoded(path, path, lambda image: np.array(_to_rgb(image)))


def decode_image(path: Path, content: IO[bytes]) -> NDArray[np.uint8]:
    """Return the pixels of an image whose file was read already, as :func:`read_image`.

    Raises:
        InputError: when it cannot be decoded to its end; the line names ``path``.
    """
    return _decoded(path, content, lambda image: np.array(_to_rgb(image)))


def read_indices(path: Path) -> NDArray[np.uint8]:
    """Return the pixels (H, W) of an 8-bit grey or palette image as the numbers in the file.

    Raises:
        InputError: when the file is missing, of another kind or cannot be decoded to its end.
    """
    return _decoded(path, path, _to_indices)


def resize_image(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to ``size`` = (h, w) whatever the aspect; bilinear with antialiasing.

    These are Pillow's pixels, which torchvision's ``Resize`` gives for Pillow images too.
    """
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


def _decoded(
    path: Path, source: Path | IO[bytes], pixels: Callable[[Image.Image], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    try:
        with Image.open(source) as image:
            return pixels(image)
    except FileNotFoundError as error:
        raise InputError(f"image {path} does not exist; restore it from the dataset") from error
    except _DAMAGE as error:
        raise InputError(
            f"image {path} cannot be decoded ({_reason(error)}); restore it from the dataset"
        ) from error


def _to_indices(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode not in ("L", "P"):
        raise ValueError(f"mode {image.mode}: indices must be 8-bit grey or palette")
    return np.array(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips everything above 255 to white
        high_byte = np.array(image).astype(np.uint16) >> 8
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}: values of 32 bit have no known white")
    if image.mode in ("P", "PA"):
        # by way of RGBA, else Pillow warns of a transparency that is lost on purpose
        image = image.convert("RGBA")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    # Pillow's message for an unknown format repeats the path
    unknown = isinstance(error, UnidentifiedImageError)
    return "not an image" if unknown else one_line(error) or type(error).__name__
