"""ADL: Attention-based Dropout Layer for WSOL (Choe and Shim, CVPR 2019).

In training, at a few places of the network, the mean over channels says where the evidence is. It
either scales the features, through a sigmoid, or hides those where it is highest. The map is CAM's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.inception_v3 import InceptionV3
from timm.models.resnet import ResNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from wsolbench.cnn import ClassActivation, CnnOptions, hooked, stages
from wsolbench.method import MethodInfo
from wsolbench.registry import register_method
from wsolbench.types import Batch


class AdlOptions(CnnOptions):
    """Options of ADL.

    Attributes:
        drop_rate: how often the highest attention is hidden rather than attended to.
        drop_threshold: attention above this share of its image's maximum is hidden.
    """

    drop_rate: float = Field(0.75, ge=0, le=1)
    drop_threshold: float = Field(0.9, ge=0, le=1)


@register_method("adl")
class Adl(ClassActivation):
    """Attention-based dropout on a CNN."""

    # One number is drawn for a batch at each place.
    info = MethodInfo(
        title="ADL",
        paper="Attention-based Dropout Layer (CVPR)",
        year=2019,
        batch_coupled=("bn", "rng"),
    )
    Options = AdlOptions
    options: AdlOptions
    dropout = 0.0

    def __init__(self, backbone: nn.Module, num_classes: int, options: AdlOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.places = [f"trunk.{name}" for name in places(backbone)]
        if isinstance(backbone, InceptionV3):
            self.places.append("neck")

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy with the layers at work."""
        with hooked(self, self.places, self.attend_or_drop):
            logits = self.logits(batch.image)
        return {"loss": F.cross_entropy(logits, batch.label)}

    def attend_or_drop(self, features: Tensor) -> Tensor:
        """Features (B, D, h, w) as they leave a layer in training."""
        if torch.rand(()) + self.options.drop_rate >= 1:
            return features * drop_mask(features, self.options.drop_threshold)
        return features * importance(features)


def importance(features: Tensor) -> Tensor:
    """Sigmoid of the mean over channels (B, 1, h, w); gradients go through it."""
    return features.mean(1, keepdim=True).sigmoid()


def drop_mask(features: Tensor, threshold: float) -> Tensor:
    """0 where the mean over channels reaches that share of its image's maximum, else 1."""
    attention = features.mean(1, keepdim=True)
    highest = attention.amax((1, 2, 3), keepdim=True)
    return (attention < threshold * highest).to(features.dtype)


def places(backbone: nn.Module) -> list[str]:
    """Modules of the backbone after which a layer stands.

    On VGG16 they are the third pooling, conv4_3 and conv5_3; on ResNet the first block of stage 3
    and the first and last of stage 4; on InceptionV3 5d and 6e; elsewhere the last two stages.

    Raises:
        InputError: when timm names no stages of the backbone.
    """
    if isinstance(backbone, InceptionV3):
        return ["Mixed_5d", "Mixed_6e"]
    if isinstance(backbone, ResNet):
        last = len(backbone.layer4) - 1  # type: ignore[arg-type]
        return list(dict.fromkeys(["layer3.0", "layer4.0", f"layer4.{last}"]))
    names = stages(backbone)
    if isinstance(backbone, VGG):
        pool = int(names[2].rpartition(".")[2]) + 1
        return [f"features.{pool}", names[3], names[4]]
    return names[-2:]
