"""New method: say in one line what it does.

This file and the recipe beside it are the whole method. As it stands it works: a linear classifier
on the mean of a CNN's last features, which says at each place of the map how much that place speaks
for the class. Change what is marked; whether it still keeps the rules is said by

    wsolbench check new-method
"""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsolbench.backbones import set_output_stride
from wsolbench.method import Method, MethodInfo, Options, class_or_predicted
from wsolbench.precision import weighted_sum
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


# CHANGE: your hyper-parameters, set in the recipe or by `--set options.output_stride=8`. Values of
# another type or outside the bounds are refused.
class NewMethodOptions(Options):
    """Options of the method.

    Attributes:
        output_stride: input pixels a cell of the map.
    """

    output_stride: int = Field(16, ge=1)


@register_method("new-method")
class NewMethod(Method):
    """Linear classifier on averaged features."""

    # CHANGE: what tables say of it. `wsolbench/method.py` has the other fields: set them where
    # images of a batch see each other in training, or where the map does not depend on the class.
    info = MethodInfo(
        title="New method",
        paper="unpublished",
        year=2026,
        batch_coupled=("bn",),
    )
    Options = NewMethodOptions

    # CHANGE: what is trained beside the backbone, a model of timm without its classifier.
    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        options: NewMethodOptions,
    ) -> None:
        super().__init__(backbone, num_classes, options)
        set_output_stride(backbone, options.output_stride)
        self.trunk: Any = backbone  # timm's models have no types
        self.classifier = nn.Linear(cast(int, backbone.num_features), num_classes)

    # CHANGE: the loss of a batch. Further entries are logged; `progress` runs from 0 to 1.
    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy."""
        features = self.trunk.forward_features(batch.image)
        logits = self.classifier(features.mean((2, 3)))
        return {"loss": F.cross_entropy(logits, batch.label)}

    # CHANGE: one map (h, w) an image, of any size and range, and the class scores. `label` says
    # whose map is wanted, None stands for the predicted class. The threshold is not your affair.
    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """Weighted sum of the features with the class's weights."""
        features = self.trunk.forward_features(image)
        logits = self.classifier(features.mean((2, 3)))
        weight = self.classifier.weight[class_or_predicted(logits, label)]
        return Prediction(maps=weighted_sum(features, weight), logits=logits)
