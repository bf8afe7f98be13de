"""FSL: the few-shot supervised baseline of Choe et al. (CVPR 2020): the upper bar of WSOL.

WSOL tunes thresholds and more on held-out boxes. FSL trains on these boxes instead, four fifths of
them, and has none but the rest to choose its threshold: what a weakly supervised method cannot beat
would have been better spent on a small detector. It sees no other image.

Their code was never released. From the paper: the networks of the other methods with one logit a
place instead of the classifier, trained by binary cross entropy of each place against the boxes'
interior; the logistic map is scored like any other. What it leaves open is decided here: the loss
is taken at the map's own resolution, a cell's target is the share of it that boxes cover, and no
side of the loss is weighted.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.cnn import Cnn, CnnOptions, MapConv, field_neck
from wsolbench.method import MethodInfo
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


@register_method("fsl")
class Fsl(Cnn):
    """One foreground logit at each place of a CNN's last map."""

    info = MethodInfo(
        title="FSL baseline",
        paper="Evaluating WSOL Methods Right (CVPR)",
        year=2020,
        supervision="boxes",
        batch_coupled=("bn",),
        class_agnostic=True,
    )

    def __init__(self, backbone: nn.Module, num_classes: int, options: CnnOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.neck, width = field_neck(backbone, self.width, dropout=0.5)
        self.foreground = MapConv(width, 1)
        nn.init.normal_(self.foreground.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.foreground.bias))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, h, w) of the foreground."""
        features = self.neck(self.trunk.forward_features(image))  # type: ignore[operator]
        return cast(Tensor, self.foreground(features))[:, 0]

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Binary cross entropy with the share of each cell that boxes cover."""
        logits = self(batch.image)
        target = coverage(cast(tuple[Tensor, ...], batch.boxes), batch.image.shape[-2:])
        target = F.adaptive_avg_pool2d(target[:, None], logits.shape[-2:])[:, 0]
        return {"loss": F.binary_cross_entropy_with_logits(logits, target)}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The map has no class: ``label`` is not looked at."""
        return Prediction(maps=self(image).sigmoid())


def coverage(boxes: tuple[Tensor, ...], size: torch.Size) -> Tensor:
    """Pixels (B, height, width) whose centre is in one of an image's boxes (n, 4): 1, others 0."""
    return torch.stack([_union(each, *size) for each in boxes])


def _union(boxes: Tensor, height: int, width: int) -> Tensor:
    row, column = (torch.arange(side, device=boxes.device) + 0.5 for side in (height, width))
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    inside = ((row >= y0) & (row < y1))[:, :, None] & ((column >= x0) & (column < x1))[:, None]
    return inside.any(0).float()
