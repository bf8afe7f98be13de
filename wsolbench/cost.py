"""What a method costs: parameters, operations, memory."""

from __future__ import annotations

import copy
import logging
import os
import re
import resource
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsolbench.method import Method

log = logging.getLogger("wsolbench")

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def count_parameters(method: Method) -> tuple[int, int]:
    """Numbers of all and of trainable parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in method.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def count_macs(method: Method, image_size: int) -> int | None:
    """Multiply-accumulates of localizing one image; None where they cannot be counted.

    Counted on the meta device, where fused attention is counted too; on the CPU it is not.
    """
    ghost = copy.deepcopy(method).to("meta").eval()
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    label = torch.zeros(1, dtype=torch.int64, device="meta")
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            ghost.localize(image, label)
    except Exception as error:  # a plugin may do what only works on real numbers
        log.warning("the operations cannot be counted: %s", " ".join(str(error).split())[:200])
        return None
    return int(counter.get_total_flops()) // 2


class PeakMemory:
    """Most bytes taken since the start: of the accelerator, or by the process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        """Forget earlier peaks, where the system lets us."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif os.access(_CLEAR, os.W_OK):
            _CLEAR.write_text("5")  # resets the peak of resident memory (man 5 proc)

    def peak(self) -> int:
        """Bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if _STATUS.is_file():
            match = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
            return int(match[1]) * 1024 if match else 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
