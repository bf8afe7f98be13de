"""What a method costs: parameters, operations, memory."""

from __future__ import annotations

import copy
import logging
import os
import re
import resource
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from wsolbench.errors import one_line
from wsolbench.method import Method
from wsolbench.predictions import predict
from wsolbench.types import Prediction

log = logging.getLogger("wsolbench")

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
#: a speed is known well enough after that many seconds or batches
_SECONDS, _BATCHES = 1.0, 20


def count_parameters(method: Method) -> tuple[int, int]:
    """Numbers of all and of trainable parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in method.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def count_macs(method: Method, image_size: int) -> int | None:
    """Multiply-accumulates of localizing one image; None where they cannot be counted.

    Counted on the meta device, where fused attention is counted too; on the CPU it is not.
    """
    try:
        with FlopCounterMode(display=False) as counter:
            _localized_on_meta(method, image_size)
    except Exception as error:  # a plugin may do what only works on real numbers
        log.warning("the operations cannot be counted: %s", one_line(error, 200))
        return None
    return int(counter.get_total_flops()) // 2


def gives_maps(method: Method, image_size: int) -> bool:
    """Whether the method's answers have maps; true where only real images could tell."""
    try:
        return _localized_on_meta(method, image_size).maps is not None
    except Exception:  # as above
        return True


@torch.no_grad()
def _localized_on_meta(method: Method, image_size: int) -> Prediction:
    ghost = copy.deepcopy(method).to("meta").eval()
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    label = torch.zeros(1, dtype=torch.int64, device="meta")
    return ghost.localize(image, label)


def localization_cost(
    method: Method, image: Tensor, label: Tensor, bf16: bool
) -> tuple[float, int]:
    """Images a second and peak memory of localizing a batch; its first time is not counted.

    Args:
        method: in evaluation mode, on the images' device.
        image: (B, 3, H, W), normalised.
        label: (B,) classes whose maps are wanted.
        bf16: under autocast.
    """
    device, memory = image.device, PeakMemory(image.device)
    # what a method may draw here must not change what it draws when it is scored
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        predict(method, image, label, bf16)
        wait_for(device)
        memory.start()
        started, batches = time.perf_counter(), 0
        while batches < _BATCHES and time.perf_counter() - started < _SECONDS:
            predict(method, image, label, bf16)
            batches += 1
        wait_for(device)
    return batches * len(image) / (time.perf_counter() - started), memory.peak()


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
