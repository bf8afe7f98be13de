"""From a sample on disk to what the scorer compares with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from wsolbench.data.images import read_image, read_indices
from wsolbench.dataset import Sample, ValueRange
from wsolbench.errors import InputError
from wsolbench.parallel import prefetched, usable_cores
from wsolbench.protocol import FIGURES
from wsolbench.types import Truth

Size = tuple[int, int]


def read_truth(sample: Sample, part_count: int = 0, figures: Collection[str] = FIGURES) -> Truth:
    """Read what is true of an image: its size from the file's header, its masks pixel by pixel.

    A mask may have another resolution than its image (those of OpenImages do); the frame in which
    both are compared makes up for it.

    Args:
        sample: the image and the files that tell of it.
        part_count: how many parts the dataset names.
        figures: what is asked; masks and parts that none of them needs are not read.

    Raises:
        InputError: when a file is missing or damaged, when a pixel shows a part without a name, or
            when a box is no box or wholly outside the image. A box that only reaches past the edge
            is legal.
    """
    size = image_size(sample.path)
    masks = sample.instance_masks if "pxap" in figures else ()
    ignore = sample.ignore_mask if "pxap" in figures else None
    parts = sample.parts if "part_coverage" in figures else None
    return Truth(
        label=sample.label,
        size=size,
        boxes=_checked_boxes(sample, size),
        sized=sample.sized,
        instance_masks=tuple(read_mask(path, sample.object_values) for path in masks),
        ignore_mask=None if ignore is None else read_mask(ignore, sample.ignore_values),
        parts=None if parts is None else _read_parts(parts, part_count),
        image_id=sample.image_id,
    )


def image_size(path: Path) -> Size:
    """Return width and height of an image in pixels, from its header.

    Raises:
        InputError: when the file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError as error:
        raise InputError(f"image {path} does not exist; restore it from the dataset") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is no readable image; restore it from the dataset") from error


def read_mask(path: Path, values: ValueRange) -> NDArray[np.bool_]:
    """Return the pixels (H, W) whose brightest channel is within ``values``, both included.

    Raises:
        InputError: when the file is missing or cannot be decoded to its end.
    """
    # many times faster than `max` over an axis of three
    red, green, blue = np.moveaxis(read_image(path), 2, 0)
    brightest = np.maximum(np.maximum(red, green), blue)
    return np.asarray((brightest >= values[0]) & (brightest <= values[1]))


def _read_parts(path: Path, count: int) -> NDArray[np.uint8]:
    parts = read_indices(path)
    if parts.max() > count:
        raise InputError(
            f"{path} has a part {parts.max()} and the dataset names {count}; "
            "restore it from the dataset"
        )
    return parts


def _checked_boxes(sample: Sample, size: Size) -> NDArray[np.float64]:
    width, height = size
    for x0, y0, x1, y1 in sample.boxes:
        # Negated, so that a NaN fails too.
        if not (x0 < x1 < np.inf and y0 < y1 < np.inf and min(x0, y0) > -np.inf):
            raise InputError(f"image {sample.image_id} has a box without area: {x0, y0, x1, y1}")
        if x1 < 0 or y1 < 0 or x0 >= width or y0 >= height:
            raise InputError(
                f"image {sample.image_id} of {width}x{height} pixels has a box outside: "
                f"{x0, y0, x1, y1}"
            )
    return np.array(sample.boxes, dtype=np.float64).reshape(-1, 4)


def image_sizes(paths: Sequence[Path], label: str) -> list[Size]:
    """Widths and heights of many images, read by threads; ``label`` is what the progress says.

    Raises:
        InputError: as :func:`image_size`.
    """
    threads = 2 * usable_cores()  # most of the time goes into waiting
    found = prefetched(image_size, paths, 4 * threads, threads)
    return list(tqdm(found, label, total=len(paths), unit="image", disable=None))
