"""A method's maps beside the class scores of another run."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wsolbench.backbones import InputStatistics
from wsolbench.explain import class_scores
from wsolbench.method import Method, Options, class_or_predicted
from wsolbench.types import Batch, Prediction


class Classified(Method):
    """Localizes with one method and classifies with another, both of them trained.

    Args:
        method: makes the maps; what is told of it is its own.
        statistics: what its images are normalised with.
        classifier: makes the class scores.
        expected: what the classifier's images are normalised with.
    """

    def __init__(
        self,
        method: Method,
        statistics: InputStatistics,
        classifier: Method,
        expected: InputStatistics,
    ) -> None:
        super().__init__(method, 0, Options())
        self.method, self.classifier = method, classifier
        mean, std = (torch.tensor(v)[:, None, None] for v in (statistics.mean, statistics.std))
        other_mean, other_std = (
            torch.tensor(v)[:, None, None] for v in (expected.mean, expected.std)
        )
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", std / other_std, persistent=False)
        self.register_buffer("shift", (mean - other_mean) / other_std, persistent=False)

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """There is nothing to train."""
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The method's map of ``label``, or of the class that the classifier predicts."""
        logits = class_scores(self.classifier, image * self.scale + self.shift, label)
        own = class_or_predicted(logits, label)
        return replace(self.method.localize(image, own), logits=logits)
