"""The shapes that cross the borders between data, methods and scoring."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # datasets know nothing of tensors, and should not wait for torch
    from torch import Tensor

#: x0, y0, x1, y1 in pixels, 0-based, unclipped, corners as the dataset's own evaluators have them.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Batch:
    """What a method sees in training: no mask, and no box that its supervision does not declare.

    Attributes:
        image: (B, 3, H, W) float, normalised with the backbone's mean and std.
        label: (B,) int64 class indices.
        image_id: B names, unique within the dataset.
        boxes: B tensors (n, 4) float32 of boxes x0, y0, x1, y1 in pixels of ``image``, cropped and
            mirrored with it and not clipped; None for methods that declare no such supervision.
        whole: images of the batch that these are a part of; None where they are all of it.
        borrowed: the part is empty, and its one image, which another process has too, counts
            nothing.
        joint: losses over a batch are over the whole one, not over this part.
    """

    image: Tensor
    label: Tensor
    image_id: tuple[str, ...]
    boxes: tuple[Tensor, ...] | None = None
    whole: int | None = None
    borrowed: bool = False
    joint: bool = True

    def part(self, rows: slice) -> Batch:
        """Some of its images, as a batch that is a part of as many as before."""
        return replace(
            self,
            image=self.image[rows],
            label=self.label[rows],
            image_id=self.image_id[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
        )

    @property
    def count(self) -> int:
        """Images that count."""
        return 0 if self.borrowed else len(self.label)

    @property
    def share(self) -> float:
        """What part of the whole batch counts here."""
        return 1.0 if self.whole is None else self.count / self.whole


@dataclass(frozen=True)
class Prediction:
    """What a method says of a batch, at its native resolution and in any range.

    Attributes:
        maps: (B, h, w) score maps, never normalised by the method; None without maps.
        boxes: (B, 4) boxes x0, y0, x1, y1 in input pixels for methods without maps; else None.
        logits: (B, K) class scores; None for methods without a classifier.
    """

    maps: Tensor | None = None
    boxes: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What only the scorer sees of one image.

    Attributes:
        label: class index.
        size: width and height of the image in pixels.
        boxes: (n, 4) float64 true boxes in original pixels, unclipped (see :data:`Box`).
        sized: whether the dataset gives them by width and height.
        instance_masks: masks (H, W) bool of single instances, in original pixels.
        ignore_mask: (H, W) bool, pixels that do not count; None where nothing is ignored.
        parts: (H, W) part that each pixel shows, 1 for the first one named by the dataset, 0 for
            none; those of several objects are not told apart. None where parts are not annotated.
        image_id: name of the image, "" where nobody asks for it.
    """

    label: int
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    sized: bool = field(default=False, kw_only=True)
    instance_masks: tuple[NDArray[np.bool_], ...] = ()
    ignore_mask: NDArray[np.bool_] | None = None
    parts: NDArray[np.uint8] | None = None
    image_id: str = ""
