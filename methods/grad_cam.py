"""Grad-CAM: Visual Explanations from Deep Networks (Selvaraju et al., ICCV 2017).

A channel counts as much as the class score rises with it, on average over its places. On the last
features before a global average and a linear classifier that is CAM over the number of places. Of
the sum what is negative is cut off, so an image whose score nothing supports has a dead map.
"""

from __future__ import annotations

from torch import Tensor

from wsolbench.explain import GradientMethod
from wsolbench.method import MethodInfo
from wsolbench.precision import weighted_sum
from wsolbench.registry import register_method


@register_method("grad-cam")
class GradCam(GradientMethod):
    """Grad-CAM on any layer of a trained CNN or transformer."""

    info = MethodInfo(
        title="Grad-CAM",
        paper="Grad-CAM: Visual Explanations from Deep Networks (ICCV)",
        year=2017,
        supervision="another run",
        trainable=False,
    )

    def class_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Sum over channels of mean gradient times activation."""
        return weighted_sum(activation, gradient.mean((2, 3)))
