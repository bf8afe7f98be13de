"""SAT: Spatial-Aware Token for Weakly Supervised Object Localization (Wu et al., ICCV 2023).

One more token asks every patch, in the last blocks, whether it belongs to the object; its sigmoid
answer scales what the other tokens read from that patch, and its mean over the blocks is the map.
Classification alone would open the mask everywhere, so two losses hold it: a batch area loss and a
normalisation loss that makes the mask binary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from wsolbench import vit as plain
from wsolbench.errors import InputError
from wsolbench.method import Method, MethodInfo, Options, decay_groups
from wsolbench.precision import full_precision, widened
from wsolbench.processes import batch_mean
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


class SatOptions(Options):
    """Options of SAT.

    Attributes:
        spatial_blocks: how many of the last blocks the spatial token masks.
        area_target: share of the image that the mask of a batch should cover.
        decay_tokens: decay the tokens and position embeddings too, as the released scripts do.
    """

    spatial_blocks: int = Field(3, ge=1)
    area_target: float = Field(0.25, gt=0, lt=1)
    decay_tokens: bool = False


@register_method("sat")
class Sat(Method):
    """Spatial-Aware Token on a plain ViT or DeiT."""

    info = MethodInfo(
        title="SAT",
        paper="Spatial-Aware Token for WSOL (ICCV)",
        year=2023,
        batch_coupled=("loss",),
        class_agnostic=True,
    )
    Options = SatOptions

    def __init__(self, backbone: nn.Module, num_classes: int, options: SatOptions) -> None:
        super().__init__(backbone, num_classes, options)
        self.vit = plain.plain_vit(backbone, "SAT")
        self.options = options
        depth = len(self.vit.blocks)
        if options.spatial_blocks > depth:
            raise InputError(f"spatial_blocks={options.spatial_blocks}: there are {depth} blocks")
        self.loc_token = nn.Parameter(torch.zeros(1, 1, self.vit.embed_dim))
        self.loc_embed = nn.Parameter(torch.zeros(1, 1, self.vit.embed_dim))
        nn.init.trunc_normal_(self.loc_token, std=0.02)
        nn.init.trunc_normal_(self.loc_embed, std=0.02)
        self.head = plain.PooledConv(self.vit.embed_dim, num_classes)
        self.smoothing: Tensor
        self.register_buffer("smoothing", smoothing_kernel(), persistent=False)

    def forward_masks(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Normed tokens (B, N, D) and the mask row (B, N) of each spatial block, N = prefix+P+1."""
        tokens = plain.embed(self.vit, image)
        spatial = (self.loc_token + self.loc_embed).expand(len(tokens), -1, -1)
        tokens = torch.cat([tokens, spatial.to(tokens.dtype)], dim=1)
        masks: list[Tensor] = []
        attend = _masked_attention(masks)
        unmasked = len(self.vit.blocks) - self.options.spatial_blocks
        for index, block in enumerate(plain.blocks(self.vit)):
            choice = plain.softmax_attention if index < unmasked else attend
            tokens = plain.apply_block(block, tokens, choice)
        return self.vit.norm(tokens), masks

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and the class-agnostic map (B, h, w) in (0, 1)."""
        tokens, masks = self.forward_masks(image)
        score = torch.stack(masks).mean(0).unsqueeze(-1)
        logits = self.head.logits(plain.patch_grid(self.vit, tokens))
        return logits, plain.patch_grid(self.vit, score)[:, 0]

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy + batch area loss + normalisation loss, all of weight 1."""
        logits, score = self(batch.image)
        cls = F.cross_entropy(logits, batch.label)
        area = (batch_mean(score, batch) - self.options.area_target).abs()
        norm = self.normalization_loss(score).mean()
        return {"loss": cls + area + norm, "cls": cls, "area": area, "norm": norm}

    def normalization_loss(self, score: Tensor) -> Tensor:
        """Mean of G(1-G) over each smoothed map G of (B, h, w): (B,); zero when binary."""
        kernel = self.smoothing.to(score.dtype)
        with full_precision(score):
            smooth = F.conv2d(score.unsqueeze(1), kernel, padding=1)
        return (smooth * (1 - smooth)).mean((1, 2, 3))

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """The map has no class: ``label`` is not looked at."""
        logits, score = self(image)
        return Prediction(maps=score, logits=logits)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """As declared the tokens and position embeddings are exempt, as released they decay."""
        tokens = plain.TOKENS | {"loc_embed", "loc_token"}
        exempt: frozenset[str] = frozenset() if self.options.decay_tokens else tokens
        return decay_groups(self, lr, weight_decay, exempt)

    def official_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Theirs is the transformer itself, and the fixed blur is among its parameters."""
        own = ("loc_token", "loc_embed", "head.")
        kept = {name: value for name, value in state.items() if name != "weight"}
        return {n if n.startswith(own) else f"vit.{n}": value for n, value in kept.items()}


def _masked_attention(masks: list[Tensor]) -> plain.Attend:
    """Attention whose columns are scaled by the spatial token's mask, which is kept in ``masks``.

    (A * m) V = A (m * V): scaling the values leaves the attention itself to the fused kernel. The
    product is not renormalised.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = torch.sigmoid(mean_logit_row(query, key, row=-1))
        masks.append(mask)
        scale = mask[:, None, :, None].to(value.dtype)
        return plain.softmax_attention(query, key, value * scale)

    return attend


def mean_logit_row(query: Tensor, key: Tensor, row: int) -> Tensor:
    """Scaled attention logits of one query, averaged over heads: (B, N).

    The mean over heads of s <q, k> is one matrix-vector product with the heads side by side, so
    no (N, N) matrix is needed.
    """
    heads, width = query.shape[1], query.shape[-1]
    with full_precision(query):
        logits: Tensor = torch.einsum("bhd,bhnd->bn", widened(query[:, :, row]), widened(key))
    return logits.mul(width**-0.5 / heads)


def smoothing_kernel() -> Tensor:
    """The (1, 1, 3, 3) blur of the normalisation loss.

    Square roots of the outer product of normal probabilities of three equal bins around zero, 49/9
    standard deviations wide each, divided by their sum.
    """
    edges = torch.tensor([-49 / 6, -49 / 18, 49 / 18, 49 / 6], dtype=torch.float64)
    weight = torch.special.ndtr(edges).diff()
    kernel = torch.outer(weight, weight).sqrt()
    return (kernel / kernel.sum()).float()[None, None]
