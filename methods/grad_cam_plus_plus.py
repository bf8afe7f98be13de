"""Grad-CAM++: Improved Visual Explanations (Chattopadhyay et al., WACV 2018).

Places where the score rises are weighted by higher powers of the gradient, under the assumption
that the score is the exponential of the logit. On activations that may be negative, such as
normalised tokens, the derivation does not hold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wsolbench.explain import GradientMethod
from wsolbench.method import MethodInfo
from wsolbench.precision import weighted_sum
from wsolbench.registry import register_method

#: keeps the ratio of powers finite
EPSILON = 1e-6


@register_method("grad-cam-plus-plus")
class GradCamPlusPlus(GradientMethod):
    """Grad-CAM++ on any layer of a trained CNN or transformer."""

    info = MethodInfo(
        title="Grad-CAM++",
        paper="Grad-CAM++: Improved Visual Explanations for Deep CNNs (WACV)",
        year=2018,
        supervision="another run",
        trainable=False,
    )

    def class_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Sum over channels of the activation by g's positive part, averaged with weights alpha."""
        total = activation.sum((2, 3), keepdim=True)
        alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + EPSILON)
        alpha = torch.where(gradient == 0, 0, alpha)
        return weighted_sum(activation, (alpha * gradient.relu()).sum((2, 3)))
