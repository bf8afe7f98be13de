"""Plain vision transformers of timm, opened at the attention for methods that read or change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from wsolbench.errors import InputError
from wsolbench.precision import full_precision, widened

#: what may come before the patches, and the positions: no weight decay, as timm has it
TOKENS = frozenset({"pos_embed", "cls_token", "dist_token", "reg_token"})
#: from q, k, v, each (B, H, N, d), to the attention's output (B, H, N, d)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain_vit(backbone: nn.Module, method: str) -> VisionTransformer:
    """Return the backbone as the plain ViT that it is.

    Raises:
        InputError: when it is none, or has no class token.
    """
    layers = getattr(backbone, "blocks", ())
    plain = isinstance(backbone, VisionTransformer) and all(type(b) is Block for b in layers)
    vit = cast(VisionTransformer, backbone)
    if not plain or vit.cls_token is None:
        kind = type(backbone).__name__
        raise InputError(
            f"{method} needs a plain ViT or DeiT with a class token, not {kind}; "
            "try --backbone deit_small_patch16_224.fb_in1k"
        )
    if not isinstance(vit.patch_drop, nn.Identity):
        raise InputError(f"{method} needs every patch in its place; leave patch_drop_rate at 0")
    if isinstance(vit.norm, nn.Identity) and not isinstance(vit.fc_norm, nn.Identity):
        raise InputError(
            f"{method} reads normed tokens, and this backbone norms what it pooled of them; take "
            "one that is not pooled by averaging"
        )
    if any(getattr(block.attn, "gate", None) is not None for block in layers):
        raise InputError(f"{method} knows no gated attention; take another --backbone")
    if any(block.attn.attn_drop.p for block in layers):
        raise InputError(f"{method} reads whole attention rows; leave attn_drop_rate at 0")
    return vit


def blocks(vit: VisionTransformer) -> list[Block]:
    """The transformer's blocks in order."""
    return cast(list[Block], list(vit.blocks))


def embed(vit: VisionTransformer, image: Tensor) -> Tensor:
    """Images (B, 3, S, S) to prefix and patch tokens with positions (B, N, D)."""
    tokens: Tensor = vit.norm_pre(vit._pos_embed(vit.patch_embed(image)))
    return tokens


def grid_size(vit: VisionTransformer) -> tuple[int, int]:
    """Rows and columns of the patch grid."""
    return cast(tuple[int, int], vit.patch_embed.grid_size)


def patch_grid(vit: VisionTransformer, tokens: Tensor) -> Tensor:
    """Patch tokens of (B, N, D), whatever stands before and after them, as (B, D, h, w)."""
    height, width = grid_size(vit)
    first = vit.num_prefix_tokens
    patches = tokens[:, first : first + height * width]
    return patches.transpose(1, 2).reshape(len(tokens), -1, height, width)


def apply_block(block: Block, tokens: Tensor, attend: Attend) -> Tensor:
    """Run a transformer block (B, N, D) with ``attend`` in place of its softmax attention."""
    mixed = attention(block.attn, block.norm1(tokens), attend)
    tokens = tokens + block.drop_path1(block.ls1(mixed))
    widened: Tensor = block.ls2(block.mlp(block.norm2(tokens)))
    return tokens + cast(Tensor, block.drop_path2(widened))


def attention(layer: nn.Module, tokens: Tensor, attend: Attend) -> Tensor:
    """Run timm's attention layer on (B, N, D) with ``attend`` on its heads."""
    batch, count, _ = tokens.shape
    qkv = layer.qkv(tokens).reshape(batch, count, 3, layer.num_heads, -1)  # type: ignore[operator]
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mixed = attend(layer.q_norm(query), layer.k_norm(key), value)  # type: ignore[operator]
    merged = mixed.transpose(1, 2).reshape(batch, count, -1)
    projected: Tensor = layer.proj_drop(layer.proj(layer.norm(merged)))  # type: ignore[operator]
    return projected


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The usual attention, fused where that is faster.

    In bf16 a processor has fast products of matrices, from which torch's fused attention gains
    little: with its gradients it takes more than twice as long there.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        return _explicit_attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def _explicit_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    flat_query, flat_key, flat_value = (part.flatten(0, 1) for part in (query, key, value))
    scale, unused = query.shape[-1] ** -0.5, query.new_empty(1, 1, 1)
    logits = torch.baddbmm(unused, flat_query, flat_key.mT, beta=0, alpha=scale)
    mixed: Tensor = (logits.softmax(-1) @ flat_value).unflatten(0, query.shape[:2])
    return mixed


class PointwiseLinear(nn.Linear):
    """A linear layer on tokens (B, N, D), on a processor as the 1x1 convolution that it is.

    Torch gives float32 products to one library and convolutions to another, whose kernels for
    such shapes take up to a third less time. Tokens are a grid with the channels last: none moves.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or input.dim() != 3:
            return super().forward(input)
        grid = input.transpose(1, 2).unsqueeze(2)
        mixed = F.conv2d(grid, self.weight[:, :, None, None], self.bias)
        return mixed.squeeze(2).transpose(1, 2)


def use_pointwise_layers(model: nn.Module) -> None:
    """Make the linear layers of a transformer's blocks pointwise ones.

    The model itself is changed, not a copy; its parameters and their names stay. Of a model that
    is no vision transformer nothing is changed.
    """
    layers = model.blocks.modules() if isinstance(model, VisionTransformer) else ()
    for layer in layers:
        if type(layer) is nn.Linear:
            layer.__class__ = PointwiseLinear


class PooledConv(nn.Conv2d):
    """A 3x3 convolution to class maps whose global average is the logits.

    The average of a convolution needs no map: it is linear in nine sums of the input over windows
    that are shifted and clipped at the border.

    Args:
        width: channels D of the input.
        num_classes: channels C of the output.
    """

    bias: Tensor

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes, kernel_size=3, padding=1)

    def logits(self, grid: Tensor) -> Tensor:
        """Mean of the class maps of (B, D, h, w) over the grid: (B, C)."""
        with full_precision(grid):
            sums = _window_sums(_window_sums(widened(grid), 3), 2)  # (B, D, dx, dy)
            pooled: Tensor = torch.einsum("bdxy,cdyx->bc", sums, self.weight)
        return pooled / (grid.shape[2] * grid.shape[3]) + self.bias

    def class_map(self, grid: Tensor, label: Tensor) -> Tensor:
        """Map (B, h, w) of each image's own class ``label`` (B,), bias included.

        One product of matrices gives what each of the kernel's nine positions adds to each cell
        beside it; a convolution with a group an image would be several times slower.
        """
        batch, _, height, width = grid.shape
        # a cell adds to its left neighbour what the kernel's right column sees there
        taps = self.weight[label].flip(2, 3).flatten(2).mT  # (B, 9, D)
        with full_precision(grid):
            parts = taps @ widened(grid).flatten(2)  # (B, 9, h * w)
            summed = F.fold(parts, (height, width), kernel_size=3, padding=1)
        return summed[:, 0] + self.bias[label].view(batch, 1, 1)


def _window_sums(grid: Tensor, dim: int) -> Tensor:
    """Sums along ``dim`` of what the kernel's three positions see there, stacked at the end."""
    total = grid.sum(dim)
    last, first = grid.select(dim, -1), grid.select(dim, 0)
    return torch.stack([total - last, total, total - first], dim=-1)
