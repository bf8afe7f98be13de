"""A plain classifier on any backbone of timm: a linear layer on pooled features.

It is there to be looked into: a transformer's class token or a CNN's average, trained as usual and
without a thought of localization. Its own map is the class's weights applied at each place of the
last features. For an average that is CAM; for a class token nothing was trained to make it say
anything.
"""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.errors import InputError
from wsolbench.explain import as_grid
from wsolbench.method import Method, MethodInfo, Options, class_or_predicted, decay_groups
from wsolbench.precision import weighted_sum
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction
from wsolbench.vit import TOKENS


@register_method("plain-classifier")
class PlainClassifier(Method):
    """Linear classifier on a model's own pooling, with the class's weights at each place as map."""

    info = MethodInfo(
        title="Plain classifier",
        paper="Baseline: linear classifier on the pooled features",
        year=2021,
        batch_coupled=("bn",),
    )

    def __init__(self, backbone: nn.Module, num_classes: int, options: Options) -> None:
        super().__init__(backbone, num_classes, options)
        self.trunk: Any = backbone  # timm's models have no types
        width = cast(int, backbone.num_features)
        if getattr(backbone, "head_hidden_size", width) != width:
            raise InputError(
                f"{type(backbone).__name__} has a layer between pooling and classifier, so its "
                "places have no class; take another --backbone"
            )
        self.fc = nn.Linear(width, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def scores(self, features: Tensor) -> Tensor:
        """Logits (B, K) of the backbone's features."""
        logits: Tensor = self.fc(self.trunk.forward_head(features, pre_logits=True))
        return logits

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy."""
        logits = self.scores(self.trunk.forward_features(batch.image))
        return {"loss": F.cross_entropy(logits.float(), batch.label)}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The class's weights at each place, without bias."""
        features = self.trunk.forward_features(image)
        logits, grid = self.scores(features), as_grid(features, self.trunk, image)
        if grid is None:
            raise InputError(f"{type(self.trunk).__name__} has no places; take another --backbone")
        weight = self.fc.weight[class_or_predicted(logits, label)]
        return Prediction(maps=weighted_sum(grid, weight), logits=logits)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Tokens and position embedding do not decay."""
        return decay_groups(self, lr, weight_decay, TOKENS)
