"""Score-CAM: Score-Weighted Visual Explanations (Wang et al., CVPR Workshops 2020).

Each channel, enlarged and spread over [0, 1], is laid over the image as a mask; it counts as much
as the class scores then. There is no gradient, and one pass through the network for each channel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsolbench.explain import LayerMethod, LayerOptions, class_scores, cut_at
from wsolbench.method import MethodInfo, class_or_predicted
from wsolbench.precision import weighted_sum
from wsolbench.registry import register_method
from wsolbench.types import Prediction

#: keeps the mask of a constant channel finite
EPSILON = 1e-8


class ScoreCamOptions(LayerOptions):
    """Options of Score-CAM.

    Attributes:
        masked_batch: masked images that go through the network at once, which bounds the memory;
            it changes no map.
    """

    masked_batch: int = Field(32, ge=1)


@register_method("score-cam")
class ScoreCam(LayerMethod):
    """Score-CAM on any layer of a trained CNN or transformer."""

    info = MethodInfo(
        title="Score-CAM",
        paper="Score-CAM: Score-Weighted Visual Explanations for CNNs (CVPRW)",
        year=2020,
        supervision="another run",
        trainable=False,
    )
    Options = ScoreCamOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: ScoreCamOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.masked_batch = options.masked_batch

    def look(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The rectified sum over channels of weight times activation."""
        with cut_at(self.layer) as outputs:
            logits = class_scores(self.source, image, label)
        activation = self.grid(outputs[-1].detach(), image)
        weight = self.channel_weights(image, activation, class_or_predicted(logits, label))
        return Prediction(maps=weighted_sum(activation, weight).relu(), logits=logits)

    def channel_weights(self, image: Tensor, activation: Tensor, label: Tensor) -> Tensor:
        """Softmax over channels (B, K) of the class's logit for the image under each one's mask."""
        batch, channels = activation.shape[:2]
        pairs = torch.arange(batch * channels, device=image.device)
        scores = [
            self._masked_scores(image, activation, label, part // channels, part % channels)
            for part in pairs.split(self.masked_batch)
        ]
        return torch.cat(scores).view(batch, channels).softmax(1)

    def _masked_scores(
        self, image: Tensor, activation: Tensor, label: Tensor, of: Tensor, channel: Tensor
    ) -> Tensor:
        """Score (n,) of the images ``of`` (n,), each under the mask of one ``channel`` (n,)."""
        mask = enlarged(activation[of, channel], (image.shape[-2], image.shape[-1]))
        logits = class_scores(self.source, image[of] * mask[:, None], label[of])
        return logits.float().gather(1, label[of][:, None])[:, 0]


def enlarged(channel: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (n, h, w) at another size, corners on corners, each spread over [0, 1]."""
    large = F.interpolate(channel[:, None], size, mode="bilinear", align_corners=True)[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low + EPSILON)
