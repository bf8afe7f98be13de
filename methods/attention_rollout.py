"""Attention roll-out: Quantifying Attention Flow in Transformers (Abnar and Zuidema, ACL 2020).

Each block mixes tokens by its attention and keeps them by its residual branch; the product of these
mixtures over the blocks says how much of each patch has flowed into the class token. It knows no
class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsolbench import vit as plain
from wsolbench.errors import InputError
from wsolbench.explain import PostHoc, class_scores, timm_model
from wsolbench.method import MethodInfo, Options
from wsolbench.precision import full_precision, widened
from wsolbench.registry import register_method
from wsolbench.types import Prediction


class RolloutOptions(Options):
    """Options of attention roll-out.

    Attributes:
        start: first block that counts, from 0.
        fusion: how the heads of a block are made one.
        discard: share of a block's entries, the lowest ones, that are taken for zero; the class
            token's hold on itself stays.
    """

    start: int = Field(0, ge=0)
    fusion: Literal["mean", "max", "min"] = "mean"
    discard: float = Field(0.0, ge=0, lt=1)


@register_method("attention-rollout")
class AttentionRollout(PostHoc):
    """Roll-out on any trained method on a plain ViT or DeiT with a class token."""

    info = MethodInfo(
        title="Attention roll-out",
        paper="Quantifying Attention Flow in Transformers (ACL)",
        year=2020,
        supervision="another run",
        trainable=False,
        class_agnostic=True,
    )
    Options = RolloutOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: RolloutOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.options = options
        depth = len(self.vit.blocks)
        if options.start >= depth:
            raise InputError(f"options.start={options.start}: there are {depth} blocks, from 0")

    @property
    def vit(self) -> VisionTransformer:
        """The transformer that is looked into."""
        return plain.plain_vit(timm_model(self.source), "Attention roll-out")

    def look(self, image: Tensor, label: Tensor | None) -> Prediction:
        """What of each patch has flowed into the class token, at the transformer's grid."""
        flows: list[Tensor] = []
        layers: list[Any] = [b.attn for b in plain.blocks(self.vit)[self.options.start :]]
        hooks = [layer.qkv.register_forward_hook(self._follow(layer, flows)) for layer in layers]
        try:
            logits = class_scores(self.source, image, label)
        finally:
            for hook in hooks:
                hook.remove()
        maps = plain.patch_grid(self.vit, flows[0][:, 0, :, None])[:, 0]
        return Prediction(maps=maps, logits=logits)

    def _follow(self, layer: Any, flows: list[Tensor]) -> Callable[..., None]:
        """A hook on queries, keys and values: the attention itself may be fused into one step.

        ``flows`` holds one product (B, N, N), that of the blocks so far.
        """

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            mixed = mixture(
                fused(attention(layer, output), self.options.fusion), self.options.discard
            )
            with full_precision(mixed):
                flows[:] = [mixed @ flows[0] if flows else mixed]

        return hook


def attention(layer: Any, qkv: Tensor) -> Tensor:
    """Softmax attention (B, H, N, N) of timm's layer from its queries, keys and values."""
    batch, count, _ = qkv.shape
    query, key, _ = qkv.reshape(batch, count, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    with full_precision(qkv):
        query, key = (widened(x) for x in (layer.q_norm(query), layer.k_norm(key)))
        logits: Tensor = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return logits.softmax(-1)


def fused(heads: Tensor, fusion: str) -> Tensor:
    """Attention of all heads (B, H, N, N) as one (B, N, N)."""
    ways: dict[str, Callable[..., Tensor]] = {
        "mean": heads.mean,
        "max": heads.amax,
        "min": heads.amin,
    }
    return ways[fusion](1)


def mixture(attended: Tensor, discard: float) -> Tensor:
    """Half attention (B, N, N), half the token itself, each row scaled to sum to 1."""
    kept = without_lowest(attended, discard)
    mixed = kept + torch.eye(kept.shape[-1], device=kept.device)
    return mixed / mixed.sum(-1, keepdim=True)


def without_lowest(attended: Tensor, share: float) -> Tensor:
    """Attention (B, N, N) with the lowest share of each image's entries at zero, but the first."""
    flat = attended.flatten(1)
    lowest = flat.topk(int(flat.shape[1] * share), largest=False).indices
    zeroed = flat.scatter(1, lowest, 0)
    zeroed[:, 0] = flat[:, 0]
    return zeroed.view_as(attended)
