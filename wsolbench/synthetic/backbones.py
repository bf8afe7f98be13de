"""Two small backbones for pictures of 128 pixels, known to timm once this module is imported.

Their weights come with the package; ``wsolbench.synthetic.pretraining`` makes them again.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from wsolbench.synthetic.scene import SIDE

__all__ = ["birds_cnn", "birds_vit"]

_INPUT: dict[str, Any] = {
    "input_size": (3, SIDE, SIDE),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bilinear",
    "num_classes": 0,
}
# A tag with weights must say from where, or timm does not list it; nothing is fetched from there.
default_cfgs = generate_default_cfgs(
    {
        "birds_vit.distilled": {**_INPUT, "file": "packaged", "first_conv": "patch_embed.proj"},
        "birds_cnn.distilled": {**_INPUT, "file": "packaged", "first_conv": "stem.conv"},
    }
)

_CNN = ByoModelCfg(
    blocks=tuple(ByoBlockCfg(type="basic", d=1, c=width, s=2) for width in (48, 96, 160)),
    stem_chs=32,
    stem_type="3x3",
    stem_pool="",
)


@register_model
def birds_vit(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A plain ViT of width 128 and depth 8 on an 8x8 grid."""
    size = {"img_size": SIDE, "patch_size": 16, "embed_dim": 128, "depth": 8, "num_heads": 4}
    return build_model_with_cfg(
        VisionTransformer, "birds_vit", pretrained, **{**size, "mlp_ratio": 3, **kwargs}
    )


@register_model
def birds_cnn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A residual CNN whose last map is 8x8."""
    return build_model_with_cfg(
        ByobNet,
        "birds_cnn",
        pretrained,
        model_cfg=_CNN,
        feature_cfg={"flatten_sequential": True},
        **kwargs,
    )
