"""Weights in eight bits, so that they can come with the package."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: a packed tensor's scales stand beside it under its name with this ending
SCALE = ".scale"
#: smaller tensors, and those of one dimension, stay in half precision
SMALLEST = 1024


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round each weight to 255 steps of its output channel's largest value.

    Returns:
        a state whose large tensors are int8, each with float32 scales (channels,) beside it, and
        whose other floating tensors are float16.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            packed[name] = tensor.contiguous()
        elif tensor.ndim < 2 or tensor.numel() < SMALLEST:
            packed[name] = tensor.half().contiguous()
        else:
            packed.update(_eight_bits(name, tensor))
    return packed


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`pack`: every floating or packed tensor as float32; others are left alone."""
    names = [name for name in state if not _is_scale(name, state)]
    return {name: _wide(state[name], state.get(name + SCALE)) for name in names}


def _eight_bits(name: str, tensor: Tensor) -> dict[str, Tensor]:
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(1).clamp_min(1e-12) / 127
    steps = torch.round(rows / scale[:, None]).to(torch.int8)
    return {name: steps.view(tensor.shape).contiguous(), name + SCALE: scale}


def _is_scale(name: str, state: Mapping[str, Tensor]) -> bool:
    tensor = state.get(name.removesuffix(SCALE))
    return name.endswith(SCALE) and tensor is not None and tensor.dtype == torch.int8


def _wide(tensor: Tensor, scale: Tensor | None) -> Tensor:
    if tensor.dtype == torch.int8 and scale is not None:
        return tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
    return tensor.float() if tensor.is_floating_point() else tensor
