"""CAM: Learning Deep Features for Discriminative Localization (Zhou et al., CVPR 2016).

A linear classifier on globally averaged features says, applied at each place of the map instead of
to the average, how much that place speaks for the class.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wsolbench.cnn import ClassActivation
from wsolbench.method import MethodInfo
from wsolbench.registry import register_method
from wsolbench.types import Batch


@register_method("cam")
class Cam(ClassActivation):
    """Class activation map on a CNN."""

    info = MethodInfo(
        title="CAM",
        paper="Learning Deep Features for Discriminative Localization (CVPR)",
        year=2016,
        batch_coupled=("bn",),
    )

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy."""
        return {"loss": F.cross_entropy(self.logits(batch.image), batch.label)}
