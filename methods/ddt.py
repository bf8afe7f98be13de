"""DDT: deep descriptor transforming (Wei et al., Pattern Recognition 2019): nothing is trained.

What the images of a class have in common is the object. The descriptors at all places of all
training images of the class have a direction in which they vary most; a place's share of it says
whether it is of the object: the map is the centred descriptor's product with that first principal
component. An image meets the mean and component of its class's training images, never those of
other test images.

The sign of a component is a matter of convention, and the other one shows the background: here, as
in the reference (PSOL's script with scikit-learn 1.9), the loading of largest size is positive. The
authors cut at 0; here the protocol chooses the threshold, as for every method. Without a label the
class is taken whose mean descriptor is nearest to the image's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from wsolbench.backbones import set_output_stride
from wsolbench.method import Method, MethodInfo, Options
from wsolbench.precision import weighted_sum
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


class DdtOptions(Options):
    """Options of DDT.

    Attributes:
        output_stride: input pixels a cell of the map; None for the backbone's own.
    """

    output_stride: int | None = Field(None, ge=1)


@register_method("ddt")
class Ddt(Method):
    """First principal component of each class's descriptors, on a pretrained CNN."""

    info = MethodInfo(
        title="DDT",
        paper="Unsupervised Object Discovery and Co-Localization by DDT (Pattern Recognition)",
        year=2019,
        trainable=False,
        fits=True,
    )
    Options = DdtOptions
    mean: Tensor
    component: Tensor

    def __init__(self, backbone: nn.Module, num_classes: int, options: DdtOptions) -> None:
        super().__init__(backbone, num_classes, options)
        if options.output_stride is not None:
            set_output_stride(backbone, options.output_stride)
        self.trunk: Any = backbone.requires_grad_(False)  # timm's models have no types
        width = cast(int, backbone.num_features)
        self.register_buffer("mean", torch.zeros(num_classes, width))
        self.register_buffer("component", torch.zeros(num_classes, width))

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """There is nothing to train."""
        raise NotImplementedError

    def fit(self, batches: Iterable[Batch]) -> None:
        """Find each class's mean descriptor and first component."""
        moments: dict[int, Moments] = {}
        for batch in batches:
            features = self.trunk.forward_features(batch.image)
            for label in batch.label.unique().tolist():
                if label not in moments:
                    moments[label] = Moments(features)
                moments[label].add(features[batch.label == label])
            for done in moments.keys() - set(batch.label.tolist()):
                self.keep(done, moments.pop(done))
        for label, own in moments.items():
            self.keep(label, own)

    def keep(self, label: int, moments: Moments) -> None:
        """Store what the moments of a class's descriptors say."""
        mean, component = moments.principal()
        self.mean[label], self.component[label] = mean, component

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """Product of the centred descriptor with its class's component: above 0 is object."""
        features = self.trunk.forward_features(image).float()
        if label is None:
            label = torch.cdist(features.mean((2, 3)), self.mean).argmin(1)
        centred = features - self.mean[label][:, :, None, None]
        return Prediction(maps=weighted_sum(centred, self.component[label]))


class Moments:
    """Sums over descriptors in double precision, instead of the descriptors themselves.

    Args:
        like: descriptors (B, D, h, w), of which only D and the device matter.
    """

    def __init__(self, like: Tensor) -> None:
        width = like.shape[1]
        self.count = 0
        self.sum = torch.zeros(width, dtype=torch.float64, device=like.device)
        self.product = torch.zeros(width, width, dtype=torch.float64, device=like.device)

    def add(self, features: Tensor) -> None:
        """Take in all places of (B, D, h, w)."""
        rows = features.double().movedim(1, -1).flatten(0, -2)
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.product += rows.T @ rows

    def principal(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and the unit vector (D,) along which the descriptors vary most."""
        mean = self.sum / self.count
        covariance = self.product / self.count - torch.outer(mean, mean)
        component = torch.linalg.eigh(covariance).eigenvectors[:, -1]
        return mean, component * component[component.abs().argmax()].sign()
