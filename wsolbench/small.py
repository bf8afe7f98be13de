"""Two small backbones whose weights come with the package: the first halves of ImageNet networks.

timm knows them once this module is imported. :mod:`wsolbench.cutting` makes their weights: nothing
is trained, so they have seen ImageNet's images and labels and nothing else.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

__all__ = ["efficientnet_lite0_half_128", "vit_tiny_half_patch16_128"]

#: weights that come with the package
PACKAGED = Path(__file__).parent / "weights"
#: what each backbone is cut from
WHOLE = {
    "vit_tiny_half_patch16_128.augreg_in21k_ft_in1k": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "efficientnet_lite0_half_128.in1k": "tf_efficientnet_lite0.in1k",
}
SIDE = 128
_INPUT: dict[str, Any] = {
    # Weights must be said to lie somewhere, or timm does not list the tag.
    "file": "packaged",
    "input_size": (3, SIDE, SIDE),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "num_classes": 0,
}
default_cfgs = generate_default_cfgs(
    {
        "vit_tiny_half_patch16_128.augreg_in21k_ft_in1k": {
            **_INPUT,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "efficientnet_lite0_half_128.in1k": {
            **_INPUT,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    }
)
# The first five of EfficientNet-Lite0's seven stages (Tan and Le 2019, table 1, without squeeze
# and excitation).
_STAGES = [
    ["ds_r1_k3_s1_e1_c16"],
    ["ir_r2_k3_s2_e6_c24"],
    ["ir_r2_k5_s2_e6_c40"],
    ["ir_r3_k3_s2_e6_c80"],
    ["ir_r3_k5_s1_e6_c112"],
]


@register_model
def vit_tiny_half_patch16_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The first six of ViT-Tiny's twelve blocks, on a grid of 8x8 patches."""
    shape = {"img_size": SIDE, "patch_size": 16, "embed_dim": 192, "depth": 6, "num_heads": 3}
    name = "vit_tiny_half_patch16_128"
    return build_model_with_cfg(VisionTransformer, name, pretrained, **{**shape, **kwargs})


@register_model
def efficientnet_lite0_half_128(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """EfficientNet-Lite0 up to its last stage of stride 16: a map of 8x8 cells of 112 channels."""
    return build_model_with_cfg(
        EfficientNet,
        "efficientnet_lite0_half_128",
        pretrained,
        block_args=decode_arch_def(_STAGES),
        num_features=0,
        stem_size=32,
        fix_stem=True,
        act_layer=nn.ReLU6,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),  # of the networks trained in TensorFlow
        pad_type="same",
        **kwargs,
    )
