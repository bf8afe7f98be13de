"""Batches for training and evaluation, decoded by threads ahead of the device."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsolbench import processes
from wsolbench.data.cache import DecodedCache
from wsolbench.data.images import read_image, resize_image
from wsolbench.data.memory import available_memory
from wsolbench.data.transforms import (
    crop_flip,
    crop_flip_boxes,
    draw_places,
    eval_side,
    eval_view,
    normalize,
    to_planes,
)
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.index import labels_of
from wsolbench.parallel import Item, prefetched, usable_cores
from wsolbench.protocol import Geometry
from wsolbench.truth import read_truth
from wsolbench.types import Batch

Pixels = NDArray[np.uint8]

#: share of the available memory that decoded training images may take
MEMORY_SHARE = 0.5
#: more threads than this decode faster than any device trains
MAX_THREADS = 16
#: batches that are decoded while the device works on one
BATCHES_AHEAD = 2


class DecodedImages:
    """Images resized to ``side`` x ``side`` (aspect ignored), decoded once where they fit.

    Args:
        samples: what to decode; images are asked for by their position here.
        resize: side in pixels.
        budget: bytes the images may take; None for :data:`MEMORY_SHARE` of the available memory.
        cache: folder to keep them in where memory has no room for them; None for none.

    Attributes:
        side: ``resize``.
        in_memory: whether images are kept in memory after they were first decoded.
        why: one line with the sizes that decided where they are kept.

    Raises:
        InputError: when the folder is needed and cannot be written to.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        resize: int,
        budget: int | None = None,
        cache: Path | None = None,
    ) -> None:
        self.side = resize
        self._samples = samples
        needed = len(samples) * resize * resize * 3
        free = available_memory() * MEMORY_SHARE / processes.on_this_machine()
        allowed = int(free) if budget is None else budget
        self.in_memory = needed <= allowed
        used = None if self.in_memory else cache
        self._cache = None if used is None else DecodedCache(used, resize)
        self.why = (
            f"{len(samples)} images of {resize}x{resize} take {needed / 2**30:.2f} GiB, "
            f"{allowed / 2**30:.2f} GiB of memory allowed: {self._where(cache)}"
        )
        # pages are taken when they are first written, so the first epoch fills this gradually
        kept = len(samples) if self.in_memory else 0
        self._store = _pages((kept, resize, resize, 3))
        self._filled = np.zeros(kept, np.bool_)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Pixels:
        """Return image ``index`` as (side, side, 3); safe to call from several threads.

        Raises:
            InputError: when the file is missing or damaged.
        """
        if not self.in_memory:
            return self._decode(index)
        kept: Pixels = self._store[index]
        if not self._filled[index]:
            kept[:] = self._decode(index)
            self._filled[index] = True
        return kept

    def batches(self, groups: Sequence[Sequence[int]]) -> Iterator[Pixels]:
        """Yield (B, side, side, 3) for each group of indices, decoding ahead as needed.

        Raises:
            InputError: when a file is missing or damaged.
        """
        if self.in_memory and self._filled[np.concatenate(groups)].all():
            # nothing left to wait for, and one gather is much faster than a future an image
            return (self._store[np.asarray(group)] for group in groups)
        return _stacked(self.__getitem__, groups)

    def _where(self, cache: Path | None) -> str:
        if self.in_memory:
            return "kept in memory"
        return f"kept in {cache}" if cache else "decoded in every epoch (see --cache)"

    def _decode(self, index: int) -> Pixels:
        path = self._samples[index].path
        if self._cache is not None:
            return self._cache.read(path)
        return resize_image(read_image(path), (self.side, self.side))


def _pages(shape: tuple[int, ...]) -> Pixels:
    """Memory of its own, that goes back to the system with the array whatever malloc keeps."""
    size = math.prod(shape)
    pages = mmap.mmap(-1, size) if size else b""
    return np.frombuffer(pages, np.uint8).reshape(shape)


class Length(NamedTuple):
    """A training of so many batches, whatever the number of images, in equal parts."""

    iterations: int
    parts: int

    def batches(self, part: int) -> range:
        """The batches of a part, both counted: parts from 1, batches from 0."""
        start, stop = (self.iterations * n // self.parts for n in (part - 1, part))
        return range(start, stop)


class TrainLoader:
    """Training batches: random crop and flip of resized images, uint8 until on the device.

    Order, crops and flips are drawn once an epoch from one generator that knows the seed, the
    epoch and the number of images, and belong to images, not to places in a batch. They are the
    same on every device and whatever the batch size, the number of threads or the memory.

    With a ``length``, its parts take the place of epochs: pieces of one row of epochs, in which
    every batch is whole and may hold the end of one epoch and the begin of the next.

    Args:
        samples: training samples; where all of them have boxes, batches carry these too.
        images: the same samples' pixels.
        crop: side of the crop in pixels, at most ``images.side``.
        flip: probability of a horizontal flip.
        mean, std: of the backbone, for values in [0, 1].
        drop_last: drop a last batch of fewer than ``batch_size`` images; there is none with a
            ``length``.
        length: the whole training; None for whole epochs, however many.

    Raises:
        InputError: when the crop is larger than the image, an epoch would have no batch, or an
            image with boxes cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        images: DecodedImages,
        batch_size: int,
        crop: int,
        flip: float,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        drop_last: bool,
        device: torch.device | str,
        length: Length | None = None,
    ) -> None:
        self._samples = samples
        self._labels = torch.from_numpy(labels_of(samples))
        self._boxes = _resized_boxes(samples, images.side)
        self._images = images
        self._batch_size = batch_size
        self._crop, self._flip = crop, flip
        self._mean, self._std = tuple(mean), tuple(std)
        self._seed = seed
        self._drop_last = drop_last
        self._device = torch.device(device)
        self._length = length
        self._check()

    def __len__(self) -> int:
        """Batches in which every image comes once."""
        return batches_an_epoch(len(self._samples), self._batch_size, self._drop_last)

    def batches(self, epoch: int) -> int:
        """Batches of an epoch, or of the part that takes its place."""
        return len(self) if self._length is None else len(self._length.batches(epoch))

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield this process's part of each batch of epoch number ``epoch``.

        Any epoch can be asked for at any time.

        Args:
            first: the batch to begin with, for a training that was interrupted.

        Raises:
            InputError: when an image is missing or damaged.
        """
        slack, size = self._images.side - self._crop, self._batch_size
        drawn = draw_places(self._seed, self._places(epoch), len(self._samples), slack, self._flip)
        last = self.batches(epoch)
        groups = _grouped(drawn.image.tolist(), size)[first:last]
        corners, flips = (t.split(size)[first:last] for t in (drawn.corner, drawn.flip))
        parts = [processes.own_part(range(len(group))) for group in groups]
        images = [[group[i] for i in part] for group, (part, _) in zip(groups, parts, strict=True)]
        drawings = zip(images, self._images.batches(images), parts, corners, flips, strict=True)
        for of_part, raw, (part, borrowed), corner, flip in drawings:
            batch = self._batch(of_part, raw, corner[part], flip[part])
            whole = None if processes.count() == 1 else len(flip)
            yield replace(batch, whole=whole, borrowed=borrowed)

    def _places(self, epoch: int) -> range:
        """Places of an epoch's images in the row of all epochs."""
        if self._length is None:
            return range((epoch - 1) * len(self._samples), epoch * len(self._samples))
        batches = self._length.batches(epoch)
        return range(batches.start * self._batch_size, batches.stop * self._batch_size)

    def _batch(self, group: list[int], raw: Pixels, corner: Tensor, flip: Tensor) -> Batch:
        boxes = self._boxes_of(group, corner, flip)
        images, corner, flip, label = (
            to_device(tensor, self._device)
            for tensor in (torch.from_numpy(raw), corner, flip, self._labels[group])
        )
        cropped = crop_flip(to_planes(images), corner, flip, self._crop)
        return Batch(
            image=normalize(cropped, self._mean, self._std),
            label=label,
            image_id=tuple(self._samples[i].image_id for i in group),
            boxes=boxes,
        )

    def _boxes_of(
        self, group: list[int], corner: Tensor, flip: Tensor
    ) -> tuple[Tensor, ...] | None:
        if self._boxes is None:
            return None
        places = zip(group, corner, flip.tolist(), strict=True)
        moved = (
            crop_flip_boxes(self._boxes[i], at, mirrored, self._crop) for i, at, mirrored in places
        )
        return tuple(to_device(boxes, self._device) for boxes in moved)

    def _check(self) -> None:
        if self._crop > self._images.side:
            raise InputError(
                f"a crop of {self._crop} does not fit in images resized to {self._images.side}; "
                "set resize to at least image_size"
            )
        batches = len(self) if self._length is None else self._length.iterations
        if not self._samples or batches == 0:
            raise InputError(
                f"{len(self._samples)} training images make no batch of {self._batch_size}"
                f"{' with drop_last' if self._drop_last else ''}; "
                "use a smaller batch_size or more images"
            )


def batches_an_epoch(images: int, size: int, drop_last: bool) -> int:
    """Batches of ``size`` in which each of ``images`` comes once, the last one perhaps smaller."""
    return images // size if drop_last else -(-images // size)


class EvalLoader:
    """Evaluation batches in the order of the samples: image ids, images, labels.

    Args:
        geometry: how an image is brought to the model.
        input_size: side of the model's input in pixels.
        mean, std: of the backbone, for values in [0, 1].

    Raises:
        InputError: when the geometry's crop is larger than what it is cut from.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        geometry: Geometry,
        input_size: int,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
    ) -> None:
        self._samples = list(samples)
        self._side, self._size = eval_side(geometry, input_size), input_size
        self._batch_size = batch_size
        self._mean, self._std = tuple(mean), tuple(std)
        self._device = torch.device(device)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._samples) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Tensor, Tensor]]:
        """Yield image ids (B), normalised images (B, 3, S, S) and labels (B,) int64.

        Raises:
            InputError: when an image is missing or damaged.
        """
        groups = _grouped(self._samples, self._batch_size)
        for group, raw in zip(groups, _stacked(self._view, groups), strict=True):
            images = to_device(torch.from_numpy(raw), self._device)
            labels = torch.tensor([sample.label for sample in group], dtype=torch.int64)
            ids = tuple(sample.image_id for sample in group)
            image = normalize(to_planes(images), self._mean, self._std)
            yield ids, image, to_device(labels, self._device)

    def _view(self, sample: Sample) -> Pixels:
        return eval_view(read_image(sample.path), self._side, self._size)


def _resized_boxes(samples: Sequence[Sample], side: int) -> list[Tensor] | None:
    """Boxes (n, 4) of each image in pixels of its resized square; None unless all have some."""
    if not all(sample.boxes for sample in samples):
        return None
    truths = [read_truth(sample, figures=()) for sample in samples]
    scaled = [truth.boxes * (side / np.tile(truth.size, 2)) for truth in truths]
    return [torch.from_numpy(boxes).float() for boxes in scaled]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to CUDA from pinned memory, so that the copy overlaps with work there."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def decoding_threads() -> int:
    """One thread for each core this process may use, up to :data:`MAX_THREADS`."""
    return min(MAX_THREADS, usable_cores())


def _grouped(items: list[Item], size: int) -> list[list[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _stacked(
    function: Callable[[Item], Pixels], groups: Sequence[Sequence[Item]]
) -> Generator[Pixels, None, None]:
    """Yield np.stack of ``function`` over each group, decoding some batches ahead."""
    ahead = BATCHES_AHEAD * max((len(group) for group in groups), default=1)
    items = (item for group in groups for item in group)
    # Pillow decodes and resizes without the interpreter's lock, so threads are enough
    pixels = prefetched(function, items, ahead, decoding_threads())
    try:
        for group in groups:
            yield np.stack(list(islice(pixels, len(group))))
    finally:
        pixels.close()
