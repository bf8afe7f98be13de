"""CAM: Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016).

A linear classifier on globally averaged features says, applied at each place of the map instead of
to the average, how much that place speaks for the class.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsolbench.backbones import set_output_stride
from wsolbench.method import Method, MethodInfo, Options, class_or_predicted
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


class CamOptions(Options):
    """Options of CAM.

    Attributes:
        output_stride: input pixels a cell of the last map, at 224 pixels 16 for 14x14 and 8 for
            28x28; None for the backbone's own.
        fast_layers: parts of parameter names that train at ``fast_rate`` times the rate.
        fast_rate: factor of their learning rate.
    """

    output_stride: int | None = Field(None, ge=1)
    fast_layers: tuple[str, ...] = ()
    fast_rate: float = Field(1.0, gt=0)


@register_method("cam")
class Cam(Method):
    """Class activation map on a CNN."""

    info = MethodInfo(
        title="CAM",
        paper="Learning Deep Features for Discriminative Localization (CVPR)",
        year=2016,
        batch_coupled="bn",
    )
    Options = CamOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: CamOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.options = options
        self.trunk = backbone
        if options.output_stride is not None:
            set_output_stride(backbone, options.output_stride)
        self.fc = nn.Linear(self.trunk.num_features, num_classes)  # type: ignore[arg-type]
        nn.init.normal_(self.fc.weight, std=0.01)  # as the classifiers of Choe et al. 2020
        nn.init.zeros_(self.fc.bias)

    def features(self, image: Tensor) -> Tensor:
        """Last feature map (B, D, h, w)."""
        return self.trunk.forward_features(image)  # type: ignore[operator,no-any-return]

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy."""
        logits = self.fc(self.features(batch.image).mean((2, 3)))
        return {"loss": F.cross_entropy(logits.float(), batch.label)}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """Mean over channels of weight times feature: no bias, no rectification."""
        features = self.features(image)
        logits = self.fc(features.mean((2, 3)))
        weight = self.fc.weight[class_or_predicted(logits, label)]
        maps = torch.einsum("bdhw,bd->bhw", features, weight) / weight.shape[1]
        return Prediction(maps=maps, logits=logits)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Everything decays; the fast layers train at their own rate."""
        fast: list[nn.Parameter] = []
        slow: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            is_fast = any(part in name for part in self.options.fast_layers)
            (fast if is_fast else slow).append(parameter)
        rates = ((slow, lr), (fast, lr * self.options.fast_rate))
        return [{"params": p, "lr": rate, "weight_decay": weight_decay} for p, rate in rates if p]
