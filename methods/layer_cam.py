"""LayerCAM: Exploring Hierarchical Class Activation Maps (Jiang et al., TIP 2021).

Each place of each channel counts as much as the class score rises with it there, so that maps of
earlier, finer layers make sense too (`--set options.layer=trunk.layer3`).
"""

from __future__ import annotations

from torch import Tensor

from wsolbench.explain import GradientMethod
from wsolbench.method import MethodInfo
from wsolbench.registry import register_method


@register_method("layer-cam")
class LayerCam(GradientMethod):
    """LayerCAM on any layer of a trained CNN or transformer."""

    info = MethodInfo(
        title="LayerCAM",
        paper="LayerCAM: Exploring Hierarchical Class Activation Maps (TIP)",
        year=2021,
        supervision="another run",
        trainable=False,
    )

    def class_map(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Sum over channels of the gradient's positive part times the activation."""
        return (gradient.relu() * activation).sum(1)
