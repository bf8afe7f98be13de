"""What stays in float32 under autocast: maps, whose levels decide boxes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[None]:
    """Autocast off: bf16 would leave 8 bits to a map whose levels decide the box."""
    kind = tensor.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device, where operations are counted
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it is of half precision, else as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def weighted_sum(grid: Tensor, weight: Tensor) -> Tensor:
    """Sum over channels of (B, D, h, w) times weight (B, D): a map (B, h, w) in full precision."""
    with full_precision(grid):
        return torch.einsum("bdhw,bd->bhw", widened(grid), widened(weight))
