"""The center baseline of Choe et al. (CVPR 2020): the object is in the middle of the picture.

Their score map is an isotropic Gaussian at the centre of the image, scored like any other map. The
part of it above a threshold is a disc, its box the centred square (of the image resized to a
square): to choose the threshold on held-out images is to choose the size of one box for all images,
and the best threshold of MaxBoxAcc is the best such box. The map is also what pixel figures need,
so there is no second way to answer with a box.

The Gaussian's width changes no figure whose threshold is chosen, only how finely sizes can be told
apart once a map is cut to 256 levels. Half of the half side tells most: 107 of the 112 squares of
a frame of 224 pixels (0.3 tells 93, 1 tells 97). Under a protocol that fixes its thresholds the
width decides the box, and the figure says little.

Nothing is trained, and no image is looked at; there is no classifier, so no top-k figure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsolbench.method import Method, MethodInfo, Options
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction

#: standard deviation of the Gaussian, as a share of half the side of the image
SIGMA = 0.5


@register_method("center-box")
class CenterBox(Method):
    """A Gaussian in the middle of every image."""

    info = MethodInfo(
        title="Center baseline",
        paper="Evaluating WSOL Methods Right (CVPR)",
        year=2020,
        supervision="none",
        trainable=False,
        class_agnostic=True,
    )

    def __init__(self, backbone: nn.Module, num_classes: int, options: Options) -> None:
        super().__init__(backbone, num_classes, options)

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """There is nothing to train."""
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The same map for every image, at the resolution of the input."""
        batch, _, height, width = image.shape
        column, row = (_bump(side, image.device) for side in (height, width))
        return Prediction(maps=torch.outer(column, row).expand(batch, -1, -1))


def _bump(side: int, device: Any) -> Tensor:
    """Gaussian over the centres of ``side`` pixels that span [-1, 1]."""
    centre = (2 * torch.arange(side, device=device) + 1) / side - 1
    return torch.exp(-0.5 * (centre / SIGMA) ** 2)
