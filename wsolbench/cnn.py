"""CNNs of timm in the form of the evaluators' networks (Choe et al., CVPR 2020).

They keep a finer last map than the classifiers that they come from. ResNet and most others just
lose strides. VGG16 and InceptionV3 are cut as well and get new convolutions, the ``neck``, before
the classifier: VGG16-GAP and the InceptionV3 of the field's tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.models.inception_v3 import InceptionV3
from timm.models.vgg import VGG
from torch import Tensor, nn

from wsolbench.backbones import feature_map, set_output_stride
from wsolbench.errors import InputError
from wsolbench.method import Method, Options, class_or_predicted
from wsolbench.precision import full_precision, weighted_sum, widened
from wsolbench.types import Prediction

log = logging.getLogger("wsolbench")

#: channels of the new convolutions of VGG16-GAP and of InceptionV3
NECK_WIDTH = 1024
#: side of the images on which channels are counted; InceptionV3 needs most
PROBE = 96


class CnnOptions(Options):
    """Options of every method on a CNN.

    Attributes:
        output_stride: input pixels a cell of the last map, at 224 pixels 16 for 14x14 and 8 for
            28x28; None for the backbone's own.
        fast_layers: parts of parameter names that train at ``fast_rate`` times the rate.
        fast_rate: factor of their learning rate.
    """

    output_stride: int | None = Field(None, ge=1)
    fast_layers: tuple[str, ...] = ()
    fast_rate: float = Field(1.0, gt=0)


class Cnn(Method):
    """A CNN of timm, opened.

    Attributes:
        trunk: the backbone; its ``forward_features`` gives the last map.
        width: channels D of that map.

    Raises:
        InputError: when the backbone offers no such map, or not at that output stride.
    """

    Options = CnnOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: CnnOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.options = options
        self.trunk = backbone
        self.width = open_trunk(backbone, options.output_stride)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Everything decays; the fast layers train at their own rate."""
        fast: list[nn.Parameter] = []
        slow: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            is_fast = any(part in name for part in self.options.fast_layers)
            (fast if is_fast else slow).append(parameter)
        self._warn_of_unknown_layers()
        rates = ((slow, lr), (fast, lr * self.options.fast_rate))
        return [{"params": p, "lr": rate, "weight_decay": weight_decay} for p, rate in rates if p]

    def _warn_of_unknown_layers(self) -> None:
        names = [name for name, _ in self.named_parameters()]
        unknown = [p for p in self.options.fast_layers if not any(p in name for name in names)]
        if unknown:
            log.warning("options.fast_layers: no parameter's name contains %s", ", ".join(unknown))


class ClassActivation(Cnn):
    """A CNN whose map is CAM's, however it is trained.

    Attributes:
        neck: the new convolutions of VGG16-GAP and InceptionV3; else it does nothing.
        fc: the classifier; a convolution on InceptionV3.
    """

    #: of InceptionV3's neck in training
    dropout: ClassVar[float] = 0.5

    def __init__(self, backbone: nn.Module, num_classes: int, options: CnnOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.neck, width = field_neck(backbone, self.width, self.dropout)
        kind = ConvHead if isinstance(backbone, InceptionV3) else LinearHead
        self.fc = kind(width, num_classes)

    def features(self, image: Tensor) -> Tensor:
        """Last feature map (B, D, h, w)."""
        return cast(Tensor, self.neck(self.trunk.forward_features(image)))  # type: ignore[operator]

    def logits(self, image: Tensor) -> Tensor:
        """Class scores (B, K) in float32."""
        return self.fc.logits(self.features(image)).float()

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The class's own weights applied at each place of the last map."""
        features = self.features(image)
        logits = self.fc.logits(features)
        maps = self.fc.maps(features, class_or_predicted(logits, label))
        return Prediction(maps=maps, logits=logits)


class LinearHead(nn.Linear):
    """A linear classifier on averaged features.

    Args:
        width: channels D of the features.
        num_classes: K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes)
        nn.init.normal_(self.weight, std=0.01)  # as the classifiers of Choe et al. 2020
        nn.init.zeros_(self.bias)

    def logits(self, features: Tensor) -> Tensor:
        """Class scores (B, K) of (B, D, h, w)."""
        return cast(Tensor, self(features.mean((2, 3))))

    def maps(self, features: Tensor, label: Tensor) -> Tensor:
        """Mean over channels of weight times feature (B, h, w): no bias, no rectification."""
        weight = self.weight[label]
        return weighted_sum(features, weight) / weight.shape[1]


class MapConv(nn.Conv2d):
    """A 1x1 convolution whose maps are computed in full precision under autocast too.

    Args:
        width: channels D of its input.
        maps: channels of its output.
    """

    def __init__(self, width: int, maps: int) -> None:
        super().__init__(width, maps, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps of (B, D, h, w)."""
        with full_precision(features):
            return super().forward(widened(features))


class ConvHead(MapConv):
    """A 1x1 convolution to class maps whose averages are the logits.

    Args:
        width: channels D of the features.
        num_classes: K.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes)
        initialise(self)

    def logits(self, features: Tensor) -> Tensor:
        """Class scores (B, K) of (B, D, h, w)."""
        return cast(Tensor, self(features)).mean((2, 3))

    def maps(self, features: Tensor, label: Tensor) -> Tensor:
        """Map (B, h, w) of each image's class, bias included."""
        return of_class(self(features), label)


def open_trunk(backbone: nn.Module, output_stride: int | None) -> int:
    """Give a CNN the evaluators' form, in place, and return the channels of its last map.

    VGG loses the part that its class scores need alone. InceptionV3 ends after its third stage.

    Args:
        backbone: timm CNN.
        output_stride: input pixels a cell of the last map; None for its own.

    Raises:
        InputError: when it cannot be given that stride or offers no map.
    """
    if isinstance(backbone, InceptionV3):
        _cut_inception(backbone, output_stride or 16)
    elif output_stride is not None:
        set_output_stride(backbone, output_stride)
    if isinstance(backbone, VGG):
        setattr(backbone, "pre_logits", nn.Identity())  # noqa: B010, timm declares another type
    return int(feature_map(backbone, PROBE).shape[1])


def field_neck(backbone: nn.Module, width: int, dropout: float) -> tuple[nn.Module, int]:
    """The new layers between a trunk's map of ``width`` channels and the classifier.

    Args:
        backbone: an opened trunk.
        width: channels of its map.
        dropout: before, between and after InceptionV3's two convolutions, in training.

    Returns:
        The layers, which do nothing on most backbones, and the channels of their output.
    """
    if isinstance(backbone, VGG):
        return initialise(nn.Sequential(*conv_relu(width, NECK_WIDTH)), "he"), NECK_WIDTH
    if isinstance(backbone, InceptionV3):
        drop = nn.Dropout(dropout)
        first, second = conv_relu(width, NECK_WIDTH), conv_relu(NECK_WIDTH, NECK_WIDTH)
        return initialise(nn.Sequential(drop, *first, drop, *second, drop)), NECK_WIDTH
    return nn.Identity(), width


def conv_relu(width: int, out: int) -> tuple[nn.Module, nn.Module]:
    """A 3x3 convolution that keeps the map's size, and its ReLU."""
    return nn.Conv2d(width, out, kernel_size=3, padding=1), nn.ReLU()


def initialise(module: nn.Module, mode: Literal["xavier", "he"] = "xavier") -> nn.Module:
    """Draw the weights of all convolutions anew, as the evaluators' code does, and return it."""
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if mode == "he":
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return module


def stages(backbone: nn.Module) -> list[str]:
    """Names of the modules at which timm says that the network's stages end, in order.

    Raises:
        InputError: when it does not say so.
    """
    info: Any = getattr(backbone, "feature_info", None) or ()
    names = [str(stage["module"]) for stage in info]
    known = dict(backbone.named_modules())
    if len(names) < 3 or any(name not in known for name in names):
        kind = type(backbone).__name__
        raise InputError(f"timm names no stages of {kind}; try a ResNet, VGG or EfficientNet")
    return names


@contextmanager
def hooked(
    module: nn.Module, names: Sequence[str], hook: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Let ``hook`` see, and replace if it returns something, the outputs of sub-modules."""
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, __, output: hook(output))
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def of_class(maps: Tensor, label: Tensor) -> Tensor:
    """The map (B, h, w) of each image's own class ``label`` (B,) among (B, K, h, w)."""
    return maps[torch.arange(len(maps), device=maps.device), label]


def min_max(maps: Tensor) -> Tensor:
    """Maps (B, h, w) from 0 to 1 in each image; zero where a map is constant."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


class _Unstrided(nn.Module):
    """InceptionV3's block 6a at stride 1, after a pooling where the map is to be halved."""

    def __init__(self, block: Any, halve: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True) if halve else nn.Identity()
        self.branch3x3: nn.Module = block.branch3x3
        self.branch3x3dbl_1: nn.Module = block.branch3x3dbl_1
        self.branch3x3dbl_2: nn.Module = block.branch3x3dbl_2
        self.branch3x3dbl_3: nn.Module = block.branch3x3dbl_3
        for strided in (self.branch3x3, self.branch3x3dbl_3):
            _reshape(strided, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([self.branch3x3(x), double, pooled], 1)


def _cut_inception(backbone: Any, output_stride: int) -> None:
    if output_stride not in (8, 16):
        raise InputError(f"InceptionV3 has an output stride of 16 or 8, not {output_stride}")
    _reshape(backbone.Conv2d_1a_3x3, stride=2)
    backbone.Pool1 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
    backbone.Pool2 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
    backbone.Mixed_6a = _Unstrided(backbone.Mixed_6a, halve=output_stride == 16)
    for name in ("Mixed_7a", "Mixed_7b", "Mixed_7c"):
        setattr(backbone, name, nn.Identity())
    backbone.num_features = 768


def _reshape(block: Any, stride: int) -> None:
    """Pad a block's 3x3 convolution by one pixel and let it step by ``stride``."""
    block.conv.stride, block.conv.padding = (stride, stride), (1, 1)
