"""HaS: Hide-and-Seek (Singh and Lee, ICCV 2017).

In training each cell of a grid over the image is hidden at random, so that a network that knows the
object by one part alone must learn the others. The map is CAM's, of the whole image.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from wsolbench.cnn import ClassActivation, CnnOptions
from wsolbench.method import MethodInfo
from wsolbench.registry import register_method
from wsolbench.types import Batch


class HasOptions(CnnOptions):
    """Options of HaS.

    Attributes:
        grid_size: side of a cell in pixels.
        drop_rate: share of the cells that are hidden.
    """

    grid_size: int = Field(4, ge=1)
    drop_rate: float = Field(0.5, ge=0, le=1)


@register_method("has")
class Has(ClassActivation):
    """Hide-and-Seek on a CNN."""

    info = MethodInfo(
        title="HaS", paper="Hide-and-Seek (ICCV)", year=2017, batch_coupled=("bn", "rng")
    )
    Options = HasOptions
    options: HasOptions

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy of images with hidden cells."""
        logits = self.logits(batch.image * self.kept(batch.image))
        return {"loss": F.cross_entropy(logits, batch.label)}

    def kept(self, image: Tensor) -> Tensor:
        """What is left of images (B, 3, H, W): 1 where shown, 0 where hidden, (B, 1, H, W).

        A hidden pixel is 0 in normalised images, so it has the mean colour. Python's generator is
        drawn from, once for each cell, in the order image, row, column.
        """
        size = self.options.grid_size
        (batch, _, *sides), rate = image.shape, self.options.drop_rate
        rows, columns = (-(-side // size) for side in sides)
        draws = [random.random() > rate for _ in range(batch * rows * columns)]
        cells = torch.tensor(draws, dtype=image.dtype).view(batch, 1, rows, columns)
        pixels = cells.repeat_interleave(size, 2).repeat_interleave(size, 3)
        return pixels[:, :, : sides[0], : sides[1]].to(image.device)
