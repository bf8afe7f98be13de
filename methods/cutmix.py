"""CutMix: Regularization Strategy to Train Strong Classifiers (Yun et al., ICCV 2019).

In training a box of each image is covered by the same box of another one, and the loss asks for
both classes by the share of the picture that each has. The map is CAM's, of the whole image.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from wsolbench.cnn import ClassActivation, CnnOptions
from wsolbench.method import MethodInfo
from wsolbench.registry import register_method
from wsolbench.types import Batch


class CutMixOptions(CnnOptions):
    """Options of CutMix.

    Attributes:
        beta: both parameters of the Beta distribution of the share that an image keeps.
        probability: of a batch to be mixed.
    """

    beta: float = Field(1.0, gt=0)
    probability: float = Field(1.0, ge=0, le=1)


@register_method("cutmix")
class CutMix(ClassActivation):
    """CutMix on a CNN."""

    # One share, one box and one pairing are drawn for a batch.
    info = MethodInfo(title="CutMix", paper="CutMix (ICCV)", year=2019, batch_coupled=("bn", "rng"))
    Options = CutMixOptions
    options: CutMixOptions

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy of mixed images with both their labels, by their shares."""
        if np.random.rand() >= self.options.probability:
            return {"loss": F.cross_entropy(self.logits(batch.image), batch.label)}
        image, other, share = self.mix(batch.image, batch.label)
        logits = self.logits(image)
        own = F.cross_entropy(logits, batch.label)
        return {"loss": share * own + (1 - share) * F.cross_entropy(logits, other)}

    def mix(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return mixed images (B, 3, H, W), what was pasted's labels (B,) and the share kept."""
        keep = np.random.beta(self.options.beta, self.options.beta)
        order = torch.randperm(len(image)).to(image.device)
        height, width = image.shape[2:]
        top, left, bottom, right = cut_box(height, width, keep)
        mixed = image.clone()
        mixed[:, :, top:bottom, left:right] = image[order, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, label[order], share


def cut_box(height: int, width: int, keep: float) -> tuple[int, int, int, int]:
    """Draw the box to cover from numpy's generator: top, left, bottom, right in pixels.

    Its sides are ``sqrt(1 - keep)`` of the image's, its centre is anywhere, and what lies outside
    of the image is cut off, so that more than ``keep`` may be left.
    """
    ratio = np.sqrt(1 - keep)
    spans = []
    for side in (height, width):
        half, centre = int(side * ratio) // 2, np.random.randint(side)
        spans.append((max(0, centre - half), min(side, centre + half)))
    (top, bottom), (left, right) = spans
    return top, left, bottom, right
