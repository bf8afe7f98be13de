"""PSOL: Rethinking the Route Towards WSOL (Zhang et al., CVPR 2020).

Classification and localization are two tasks for two networks. Another run finds a box in each
training image, and a network of its own learns to predict these by regression: one box an image,
whatever its class, and no map. Classes are not its affair: Top-1 figures need another network.

As in the authors' code a box is x, y, width and height as shares of the input, cut to the crop, and
the loss is 50 times the mean squared error. They redraw a crop that misses the box; here the loss
leaves such an image out.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from wsolbench.method import Method, MethodInfo, Options
from wsolbench.precision import full_precision, widened
from wsolbench.processes import batch_ratio
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction

#: factor of the squared error
WEIGHT = 50.0


class PsolOptions(Options):
    """Options of PSOL.

    Attributes:
        hidden: width of the head's hidden layer.
        head_rate: factor of the head's learning rate.
    """

    hidden: int = Field(512, ge=1)
    head_rate: float = Field(2.0, gt=0)


@register_method("psol")
class Psol(Method):
    """Regression of one box on the pooled features of any timm model."""

    info = MethodInfo(
        title="PSOL",
        paper="Rethinking the Route Towards WSOL (CVPR)",
        year=2020,
        supervision="another run",
        batch_coupled=("bn", "loss"),
        class_agnostic=True,
    )
    Options = PsolOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: PsolOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.options = options
        self.trunk = backbone
        width = cast(int, getattr(backbone, "head_hidden_size", backbone.num_features))
        layers = nn.Linear(width, options.hidden), nn.ReLU(), nn.Linear(options.hidden, 4)
        self.head = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        """Boxes (B, 4): x, y, width and height as shares of the input."""
        features = self.trunk(image)
        with full_precision(features):  # bf16 would round to a pixel
            return cast(Tensor, self.head(widened(features)))

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Squared error to each image's first box, over the images whose crop shows some of it."""
        first = torch.stack([boxes[0] for boxes in cast(tuple[Tensor, ...], batch.boxes)])
        target, seen = shares(first, batch.image.shape[-1])
        error = (self(batch.image) - target).square().mean(1)
        return {"loss": WEIGHT * batch_ratio((error * seen).sum(), seen.sum(), batch)}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The box has no class: ``label`` is not looked at."""
        x, y, width, height = self(image).unbind(1)
        boxes = torch.stack([x, y, x + width, y + height], dim=1)
        return Prediction(boxes=boxes * image.shape[-1])

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Everything decays; the head trains at its own rate."""
        rates = (self.trunk, lr), (self.head, lr * self.options.head_rate)
        return [
            {"params": [*part.parameters()], "lr": rate, "weight_decay": weight_decay}
            for part, rate in rates
        ]


def shares(boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """What is regressed, and for which images.

    Args:
        boxes: (B, 4) x0, y0, x1, y1 in pixels of a square input, perhaps past its edges.
        side: of the input, pixels.

    Returns:
        x, y, width and height (B, 4) as shares of the input, cut to it, and 1 where some of the box
        is in it, else 0 (B,).
    """
    cut = boxes.clamp(0, side) / side
    near, extent = cut[:, :2], cut[:, 2:] - cut[:, :2]
    return torch.cat([near, extent], dim=1), (extent > 0).all(1).to(boxes.dtype)
