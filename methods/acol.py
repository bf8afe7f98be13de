"""ACoL: Adversarial Complementary Learning for WSOL (Zhang et al., CVPR 2018).

Two classifiers share a trunk. The features where the first one's map is high are erased before the
second one sees them, so it must find other evidence; the map is the larger of both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.resnet import ResNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from wsolbench.cnn import Cnn, CnnOptions, MapConv, conv_relu, initialise, min_max, of_class
from wsolbench.method import MethodInfo, class_or_predicted
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


class AcolOptions(CnnOptions):
    """Options of ACoL.

    Attributes:
        erase_threshold: features are erased where the first map, min-maxed, reaches it.
        branch_width: channels of the classifiers' convolutions.
    """

    erase_threshold: float = Field(0.7, ge=0, le=1)
    branch_width: int = Field(1024, ge=1)


@register_method("acol")
class Acol(Cnn):
    """Adversarial complementary learning on a CNN."""

    info = MethodInfo(
        title="ACoL",
        paper="Adversarial Complementary Learning (CVPR)",
        year=2018,
        batch_coupled=("bn",),
    )
    Options = AcolOptions
    options: AcolOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: AcolOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.smooth: nn.Module = nn.Identity()
        if isinstance(backbone, VGG):
            _widen_pools(backbone)
            self.smooth = nn.AvgPool2d(3, stride=1, padding=1)
        width = options.branch_width
        self.branch_a = _branch(self.width, width, num_classes)
        self.branch_b = _branch(self.width, width, num_classes)
        if isinstance(backbone, ResNet):  # the evaluators start VGG's and Inception's as Xavier
            initialise(nn.ModuleList([self.branch_a, self.branch_b]), "he")

    def class_maps(self, image: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Maps (B, K, h, w) of both classifiers.

        Args:
            image: (B, 3, H, W).
            label: (B,) class whose first map erases; None for the first one's prediction.
        """
        features = self.smooth(self.trunk.forward_features(image))  # type: ignore[operator]
        first = self.branch_a(features)
        own = of_class(first.detach(), class_or_predicted(first.mean((2, 3)), label))
        kept = min_max(own) < self.options.erase_threshold
        return first, self.branch_b(features * kept.unsqueeze(1))

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy of both classifiers."""
        maps = self.class_maps(batch.image, batch.label)
        first, second = (F.cross_entropy(m.mean((2, 3)), batch.label) for m in maps)
        return {"loss": first + second, "first": first, "second": second}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The larger of both maps, each min-maxed; the first classifier's logits."""
        first, second = self.class_maps(image, label)
        logits = first.mean((2, 3))
        own = class_or_predicted(logits, label)
        a, b = (min_max(of_class(maps, own)) for maps in (first, second))
        return Prediction(maps=torch.maximum(a, b), logits=logits)


def _branch(width: int, hidden: int, num_classes: int) -> nn.Module:
    layers = (*conv_relu(width, hidden), *conv_relu(hidden, hidden))
    return initialise(nn.Sequential(*layers, MapConv(hidden, num_classes)))


def _widen_pools(vgg: nn.Module) -> None:
    """Pool over 3x3 cells everywhere, with the strides as they are."""
    for layer in vgg.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.kernel_size, layer.padding = 3, 1
