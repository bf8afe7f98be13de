"""Literal SAT, TS-CAM and CAM in plain torch: every N x N tensor is formed, nothing is fused.

The functions take a flat state with the names of the released checkpoints and mirror the released
arithmetic line by line. They are slow on purpose: the tests hold the methods' fast forms to them,
and ``benchmarks/training.py`` times them, keeping no more than the released code keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
Grid = tuple[int, int]

EPS = 1e-6


@dataclass(frozen=True)
class Trace:
    """What one pass leaves behind, of all blocks.

    Attributes:
        tokens_norm: (B, N, D) after the final norm.
        block_out: (depth, B, N, D) residual stream after each block.
        attention: (depth, B, H, N, N) softmax of each block, before any mask.
        masks: (depth, B, N) sigmoid row of the last token, of every block.
    """

    tokens_norm: Tensor
    block_out: Tensor
    attention: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Output:
    """A trace and what the method's head makes of it.

    Attributes:
        trace: see :class:`Trace`.
        grid_map: (B, h, w) what localises: mean mask (SAT) or summed cls attention (TS-CAM).
        semantic_map: (B, K, h, w) the 3x3 convolution's output, with bias.
        logits: (B, K) its spatial mean.
    """

    trace: Trace
    grid_map: Tensor
    semantic_map: Tensor
    logits: Tensor

    @property
    def cams(self) -> Tensor:
        """(B, K, h, w) product of the class-agnostic map and each class's own."""
        return self.grid_map[:, None] * self.semantic_map


def depth_of(state: State) -> int:
    """Return the number of transformer blocks."""
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.layer_norm(x, weight.shape, weight, bias, EPS)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _prefix(state: State) -> Tensor:
    """Return cls and, where there are any, register tokens (1, n, D)."""
    tokens = [state["cls_token"], *([state["reg_token"]] if "reg_token" in state else [])]
    return torch.cat(tokens, dim=1)


def embed(state: State, image: Tensor) -> tuple[Tensor, Grid]:
    """Return the tokens [cls | registers | patches row-major | spatial] and the patch grid."""
    weight = state["patch_embed.proj.weight"]
    patches = F.conv2d(image, weight, state["patch_embed.proj.bias"], stride=weight.shape[-1])
    grid = (patches.shape[2], patches.shape[3])
    sequence = patches.flatten(2).transpose(1, 2)
    x = torch.cat([_prefix(state).expand(len(image), -1, -1), sequence], dim=1)
    x = x + state["pos_embed"]
    if "loc_token" in state:
        spatial = (state["loc_token"] + state["loc_embed"]).expand(len(image), -1, -1)
        x = torch.cat([x, spatial], dim=1)
    return x, grid


def _attention(
    state: State, block: str, x: Tensor, heads: int, masked: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the block's attention output (B, N, D), softmax (B, H, N, N) and mask row (B, N)."""
    b, n, d = x.shape
    qkv = _linear(state, f"{block}.attn.qkv", x).reshape(b, n, 3, heads, d // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-2, -1)) * (d // heads) ** -0.5
    mask = torch.sigmoid(scores[:, :, -1, :].mean(dim=1))
    softmax = scores.softmax(dim=-1)
    weights = softmax * mask[:, None, None, :] if masked else softmax
    out = (weights @ v).transpose(1, 2).reshape(b, n, d)
    return _linear(state, f"{block}.attn.proj", out), softmax, mask


def each_block(
    state: State, x: Tensor, heads: int, acting: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield stream, softmax and mask row after each block, see :class:`Trace`.

    The last ``acting`` blocks multiply their softmax by the mask row.
    """
    depth = depth_of(state)
    for index in range(depth):
        block = f"blocks.{index}"
        masked = index >= depth - acting
        out, softmax, mask = _attention(
            state, block, _norm(state, f"{block}.norm1", x), heads, masked
        )
        x = x + out
        hidden = F.gelu(_linear(state, f"{block}.mlp.fc1", _norm(state, f"{block}.norm2", x)))
        x = x + _linear(state, f"{block}.mlp.fc2", hidden)
        yield x, softmax, mask


def run_blocks(state: State, x: Tensor, heads: int, acting: int) -> Trace:
    """Run all blocks as :func:`each_block` does and keep everything."""
    rows = each_block(state, x, heads, acting)
    outs, attention, masks = (torch.stack(column) for column in zip(*rows, strict=True))
    return Trace(_norm(state, "norm", outs[-1]), outs, attention, masks)


def _output(state: State, trace: Trace, rows: Tensor, grid: Grid) -> Output:
    """Apply the head; ``rows`` (B, P) is the class-agnostic map of the patches."""
    semantic = class_maps(state, trace.tokens_norm, grid)
    return Output(trace, rows.unflatten(1, grid), semantic, semantic.mean(dim=(2, 3)))


def class_maps(state: State, tokens: Tensor, grid: Grid) -> Tensor:
    """Return the 3x3 convolution (B, K, h, w) of the patches among normed tokens (B, N, D)."""
    first = _prefix(state).shape[1]
    plane = tokens[:, first : first + grid[0] * grid[1]].transpose(1, 2).unflatten(2, grid)
    return F.conv2d(plane, state["head.weight"], state["head.bias"], padding=1)


def lean_sat(state: State, image: Tensor, heads: int, acting: int = 3) -> tuple[Tensor, Tensor]:
    """Return logits and map of :func:`sat`, without its trace."""
    first, grid = embed(state, image)
    x, masks = first, []
    for after, _, mask in each_block(state, first, heads, acting):
        x = after
        masks.append(mask)
    rows = torch.stack(masks[-acting:])[:, :, _prefix(state).shape[1] : -1].mean(dim=0)
    logits = class_maps(state, _norm(state, "norm", x), grid).mean(dim=(2, 3))
    return logits, rows.unflatten(1, grid)


def lean_ts_cam(state: State, image: Tensor, heads: int, train: bool) -> tuple[Tensor, Tensor]:
    """Return logits and, out of training, the maps of all classes of :func:`ts_cam`.

    The released code keeps the attention of all blocks in training too.
    """
    first, grid = embed(state, image)
    x, attention = first, []
    for after, softmax, _ in each_block(state, first, heads, acting=0):
        x = after
        attention.append(softmax)
    semantic = class_maps(state, _norm(state, "norm", x), grid)
    logits = semantic.mean(dim=(2, 3))
    if train:
        return logits, semantic
    rows = torch.stack(attention).mean(dim=2).sum(dim=0)[:, 0, _prefix(state).shape[1] :]
    return logits, rows.unflatten(1, grid)[:, None] * semantic


def sat(state: State, image: Tensor, heads: int, acting: int = 3) -> Output:
    """Run the spatial-aware transformer; its map is the mean of the acting masks."""
    x, grid = embed(state, image)
    trace = run_blocks(state, x, heads, acting)
    first = _prefix(state).shape[1]
    return _output(state, trace, trace.masks[-acting:, :, first:-1].mean(dim=0), grid)


def ts_cam(state: State, image: Tensor, heads: int) -> Output:
    """Run TS-CAM; its map is the sum over blocks of the head-mean cls attention."""
    x, grid = embed(state, image)
    trace = run_blocks(state, x, heads, acting=0)
    first = _prefix(state).shape[1]
    return _output(state, trace, trace.attention.mean(2)[:, :, 0, first:].sum(dim=0), grid)


def sat_losses(
    logits: Tensor,
    grid_map: Tensor,
    kernel: Tensor,
    label: Tensor,
    target: float,
    scope: Literal["batch", "image"] = "batch",
) -> dict[str, Tensor]:
    """Return the released objective's parts and their sum for one rank's batch."""
    blurred = F.conv2d(grid_map[:, None], kernel, padding=1)
    coverage = grid_map.mean(dim=(1, 2))
    area = (coverage.mean() if scope == "batch" else coverage) - target
    parts = {
        "cls": F.cross_entropy(logits, label),
        "area": area.abs().mean(),
        "norm": (blurred * (1 - blurred)).mean(),
    }
    return {**parts, "loss": parts["cls"] + parts["area"] + parts["norm"]}


def cam(feature: Tensor, weight: Tensor, label: Tensor) -> Tensor:
    """Return (B, h, w) class maps of (B, D, h, w) features: channel by channel, then the mean."""
    weighted = [f * weight[c][:, None, None] for f, c in zip(feature, label.tolist(), strict=True)]
    return torch.stack(weighted).mean(dim=1)
