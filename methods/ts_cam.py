"""TS-CAM: Token Semantic Coupled Attention Map for WSOL (Gao et al., ICCV 2021).

Classification is moved from the class token to the patch tokens by a convolution, whose class map
knows the class but not the object's extent; the class token's attention, summed over all blocks,
knows the extent but not the class. The map is their product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench import vit as plain
from wsolbench.method import Method, MethodInfo, Options, class_or_predicted, decay_groups
from wsolbench.precision import full_precision, widened
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction


@register_method("ts-cam")
class TsCam(Method):
    """Token semantic coupled attention map on a plain ViT or DeiT."""

    info = MethodInfo(title="TS-CAM", paper="TS-CAM (ICCV)", year=2021)

    def __init__(self, backbone: nn.Module, num_classes: int, options: Options) -> None:
        super().__init__(backbone, num_classes, options)
        self.vit = plain.plain_vit(backbone, "TS-CAM")
        self.head = plain.PooledConv(self.vit.embed_dim, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C); training needs no attention map."""
        tokens = plain.embed(self.vit, image)
        for block in plain.blocks(self.vit):
            tokens = plain.apply_block(block, tokens, plain.softmax_attention)
        return self.head.logits(plain.patch_grid(self.vit, self.vit.norm(tokens)))

    def forward_attention(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Normed tokens (B, N, D) and the class token's attention to patches (depth, B, h, w)."""
        tokens = plain.embed(self.vit, image)
        rows: list[Tensor] = []
        attend = _observed_attention(rows)
        for block in plain.blocks(self.vit):
            tokens = plain.apply_block(block, tokens, attend)
        grids = [plain.patch_grid(self.vit, row.unsqueeze(-1))[:, 0] for row in rows]
        return self.vit.norm(tokens), torch.stack(grids)

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross entropy."""
        return {"loss": F.cross_entropy(self(batch.image), batch.label)}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        """Class map (bias included) times the plain sum of the blocks' attention."""
        tokens, attention = self.forward_attention(image)
        grid = plain.patch_grid(self.vit, tokens)
        logits = self.head.logits(grid)
        semantic = self.head.class_map(grid, class_or_predicted(logits, label))
        return Prediction(maps=attention.sum(0) * semantic, logits=logits)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Class token and position embedding do not decay."""
        return decay_groups(self, lr, weight_decay, plain.TOKENS)

    def official_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Theirs is the transformer itself."""
        return {n if n.startswith("head.") else f"vit.{n}": value for n, value in state.items()}


def _observed_attention(rows: list[Tensor]) -> plain.Attend:
    """The usual attention; the class token's row (B, N), mean over heads, is kept in ``rows``."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows.append(attention_row(query, key, row=0))
        return plain.softmax_attention(query, key, value)

    return attend


def attention_row(query: Tensor, key: Tensor, row: int) -> Tensor:
    """Softmax attention of one query, averaged over heads: (B, N)."""
    with full_precision(query):
        logits: Tensor = torch.einsum("bhd,bhnd->bhn", widened(query[:, :, row]), widened(key))
    return logits.mul(query.shape[-1] ** -0.5).softmax(-1).mean(1)
