"""SPG: Self-produced Guidance for WSOL (Zhang et al., ECCV 2018).

The class map is cut into sure foreground, sure background and a rest that is left open. That
teaches a mask made from a deep layer (B2); its mask, cut likewise, teaches one made from an earlier
layer (B1); and the mean of both teaches a mask on the last features (C), which the classifier
shares. The masks are for training alone: what localises is the class map.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.inception_v3 import InceptionV3
from timm.models.resnet import ResNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from wsolbench.backbones import feature_map
from wsolbench.cnn import (
    PROBE,
    Cnn,
    CnnOptions,
    ConvHead,
    conv_relu,
    field_neck,
    hooked,
    initialise,
    min_max,
    of_class,
    stages,
)
from wsolbench.method import MethodInfo, class_or_predicted
from wsolbench.processes import batch_ratio
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction

#: a map with fewer pixels of sure foreground is cut at :data:`SHARE` of its maximum instead
FEWEST = 30
SHARE = 0.7


class SpgOptions(CnnOptions):
    """Options of SPG.

    Attributes:
        thresholds: where sure foreground begins and where sure background ends, in the guides of B2
            (the class map), B1 (B2's mask) and C (the mean of both masks).
        b_width, c_width: channels of the new convolutions of B and of C.
    """

    thresholds: tuple[tuple[float, float], tuple[float, float], tuple[float, float]] = (
        (0.7, 0.01),
        (0.5, 0.05),
        (0.7, 0.1),
    )
    b_width: int = Field(512, ge=1)
    c_width: int = Field(512, ge=1)


class Maps(NamedTuple):
    """What comes out of the network: class maps (B, K, h, w), logits of masks (B, 1, h, w)."""

    classes: Tensor
    b1: Tensor
    b2: Tensor
    c: Tensor


@register_method("spg")
class Spg(Cnn):
    """Self-produced guidance on a CNN."""

    # The masks' losses are means over the sure pixels of the whole batch.
    info = MethodInfo(
        title="SPG", paper="Self-produced Guidance (ECCV)", year=2018, batch_coupled=("bn", "loss")
    )
    Options = SpgOptions
    options: SpgOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: SpgOptions) -> None:
        super().__init__(backbone, num_classes, options)
        if isinstance(backbone, VGG):
            _widen_fourth_pool(backbone)
        self.sources = sources(backbone)
        b, c = options.b_width, options.c_width
        first, second = self._source_widths()
        self.neck, width = _neck(backbone, self.width)
        self.classifier = ConvHead(width, num_classes)
        self.mask_b1 = initialise(nn.Sequential(*conv_relu(first, b)))
        self.mask_b2 = initialise(nn.Sequential(*conv_relu(second, b)))
        self.mask_b = _mask(b, b)
        self.mask_c = _mask(width, c)

    def forward(self, image: Tensor) -> Maps:
        """All maps of images (B, 3, H, W)."""
        seen: list[Tensor] = []
        with hooked(self.trunk, self.sources, seen.append):
            features = self.features(image)
        early, late = seen
        b1, b2 = self.mask_b(self.mask_b1(early)), self.mask_b(self.mask_b2(late))
        return Maps(self.classifier(features), b1, b2, self.mask_c(features))

    def features(self, image: Tensor) -> Tensor:
        """Last feature map (B, D, h, w)."""
        return cast(Tensor, self.neck(self.trunk.forward_features(image)))  # type: ignore[operator]

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy and the losses of the three masks, all of weight 1."""
        return self.losses(self(batch.image), batch)

    def losses(self, maps: Maps, batch: Batch) -> dict[str, Tensor]:
        """All losses, those of masks at the size of the images."""
        label, size = batch.label, batch.image.shape[2:]
        cls = F.cross_entropy(maps.classes.mean((2, 3)), label)
        b1, b2, c = (_resized(mask[:, 0], size) for mask in (maps.b1, maps.b2, maps.c))
        attention = min_max(_resized(of_class(maps.classes.detach(), label), size))
        fused = (b1.detach().sigmoid() + b2.detach().sigmoid()) / 2
        to_b2, to_b1, to_c = self.options.thresholds
        guided = {
            "b2": guided_loss(b2, attention, *to_b2, batch),
            "b1": guided_loss(b1, b2.detach().sigmoid(), *to_b1, batch),
            "c": guided_loss(c, fused, *to_c, batch),
        }
        return {"loss": cls + sum(guided.values()), "cls": cls, **guided}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The class's own map, bias included."""
        maps = self.classifier(self.features(image))
        logits = maps.mean((2, 3))
        return Prediction(maps=of_class(maps, class_or_predicted(logits, label)), logits=logits)

    def _source_widths(self) -> list[int]:
        """Channels of what B1 and B2 look at."""
        seen: list[Tensor] = []
        with hooked(self.trunk, self.sources, seen.append):
            feature_map(self.trunk, PROBE)
        return [tensor.shape[1] for tensor in seen]


def guide(attention: Tensor, high: float, low: float) -> tuple[Tensor, Tensor]:
    """Sure foreground and sure background, each (B, H, W) of bool, of attention in [0, 1].

    They exclude each other: what is below ``low`` is background in any case.
    """
    foreground = attention > high
    few = foreground.sum((1, 2), keepdim=True) < FEWEST
    highest = attention.amax((1, 2), keepdim=True)
    foreground = torch.where(few, attention > SHARE * highest, foreground)
    background = attention < low
    return foreground & ~background, background


def guided_loss(logits: Tensor, attention: Tensor, high: float, low: float, batch: Batch) -> Tensor:
    """Binary cross entropy of logits (B, H, W), the mean over all sure pixels of the batch."""
    foreground, background = guide(attention, high, low)
    sure = (foreground | background).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(
        logits, foreground.to(logits.dtype), weight=sure, reduction="sum"
    )
    return batch_ratio(each, sure.sum(), batch)


def sources(backbone: nn.Module) -> tuple[str, str]:
    """Modules of the backbone whose outputs B1 and B2 look at.

    On VGG16 they are the fourth pooling and conv5_3; on ResNet the first block and the end of stage
    3; on InceptionV3 what goes into 6a and what comes out of 6d; elsewhere the ends of the last
    stages but two and but one.

    Raises:
        InputError: when timm names no stages of the backbone.
    """
    if isinstance(backbone, InceptionV3):
        return "Mixed_6a.pool", "Mixed_6d"
    if isinstance(backbone, ResNet):
        return "layer3.0", "layer3"
    names = stages(backbone)
    if isinstance(backbone, VGG):
        return _fourth_pool(backbone), names[4]
    return names[-3], names[-2]


def _neck(backbone: nn.Module, width: int) -> tuple[nn.Module, int]:
    if isinstance(backbone, VGG):  # here the evaluators' has two convolutions more, of 512 channels
        return initialise(nn.Sequential(*conv_relu(width, width), *conv_relu(width, width))), width
    return field_neck(backbone, width, dropout=0.5)


def _mask(width: int, hidden: int) -> nn.Module:
    layers = (*conv_relu(width, hidden), nn.Conv2d(hidden, 1, kernel_size=1))
    return initialise(nn.Sequential(*layers))


def _fourth_pool(vgg: nn.Module) -> str:
    return f"features.{int(stages(vgg)[3].rpartition('.')[2]) + 1}"


def _widen_fourth_pool(vgg: nn.Module) -> None:
    """Pool over 3x3 cells there, unless the pooling was taken out for a finer map."""
    pool = cast(nn.MaxPool2d, vgg.get_submodule(_fourth_pool(vgg)))
    if pool.stride != 1:
        pool.kernel_size, pool.padding = 3, 1


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    """Maps (B, h, w) bilinearly at another size, in float32."""
    maps = maps.float().unsqueeze(1)
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
