"""What a method costs: parameters, operations, memory."""

from __future__ import annotations

import copy
import resource
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsolbench.method import Method


def count_parameters(method: Method) -> tuple[int, int]:
    """Numbers of all and of trainable parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in method.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def count_macs(method: Method, image_size: int) -> int:
    """Multiply-accumulates of localizing one image.

    Counted on the meta device, where fused attention is counted too; on the CPU it is not.
    """
    ghost = copy.deepcopy(method).to("meta").eval()
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost.localize(image, torch.zeros(1, dtype=torch.int64, device="meta"))
    return int(counter.get_total_flops()) // 2


def peak_memory(device: torch.device) -> int:
    """Most bytes ever taken: of the accelerator's memory, or of the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
