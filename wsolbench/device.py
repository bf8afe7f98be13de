"""Where a run computes, and how it is kept reproducible there."""

from __future__ import annotations

import logging
import os
from typing import Literal

import torch

from wsolbench.errors import InputError, did_you_mean

DEVICES = ("auto", "cpu", "cuda")

log = logging.getLogger("wsolbench")


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` takes CUDA where there is one.

    Raises:
        InputError: for an unknown name, or CUDA where there is none.
    """
    if name not in DEVICES:
        raise InputError(f"unknown device '{name}'{did_you_mean(name, DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available; use --device cpu")
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


def check_precision(device: torch.device, precision: Literal["32", "bf16"]) -> None:
    """Refuse bf16 on a card without it, warn on a processor that emulates it.

    Raises:
        InputError: when the card has no bf16.
    """
    if precision != "bf16":
        return
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bf16 arithmetic; use --precision 32")
    if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        log.warning("this processor emulates bf16, which is many times slower than --precision 32")


def make_deterministic() -> None:
    """Make runs on a GPU repeatable and float32 there mean float32; call before CUDA is used.

    Memory-efficient attention is off because its backward pass is not repeatable; in bf16 the flash
    kernel, which is, takes its place.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.enable_mem_efficient_sdp(False)
