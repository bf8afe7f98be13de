"""Where a run computes, and how it is kept reproducible there."""

from __future__ import annotations

import ctypes
import logging
import os

import torch
import torch.utils.deterministic

from wsolbench.errors import InputError, did_you_mean
from wsolbench.recipe import Precision

DEVICES = ("auto", "cpu", "cuda")

log = logging.getLogger("wsolbench")

#: mallopt(3): never trim, grow by 256 MiB, never map a block of its own
_MALLOC = ((-1, -1), (-2, 1 << 28), (-4, 0))


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


def check_precision(device: torch.device, precision: Precision) -> None:
    """Refuse what the device cannot compute in, warn where it emulates bf16.

    Raises:
        InputError: when the card has no bf16, or TF32 is asked of a device that has none.
    """
    if precision == "tf32" and not has_tf32(device):
        raise InputError("TF32 is arithmetic of NVIDIA GPUs from Ampere on; use --precision 32")
    if precision == "bf16" and device.type == "cuda" and not has_bf16():
        raise InputError("this GPU has no bf16 arithmetic; use --precision 32")
    if precision == "bf16" and emulates_bf16(device):
        log.warning("this processor emulates bf16, which is many times slower than --precision 32")


def has_tf32(device: torch.device) -> bool:
    """Whether the device can round the factors of float32 products to TensorFloat-32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def has_bf16() -> bool:
    """Whether the GPU computes in bf16 itself: torch emulates it on older ones."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def emulates_bf16(device: torch.device) -> bool:
    """Whether bf16 is slower than float32 here."""
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def allow_tf32(allowed: bool) -> None:
    """Say whether products of float32 may be rounded to TF32, from now on and in all threads."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def make_deterministic() -> None:
    """Make runs on a GPU repeatable and float32 there mean float32; call before CUDA is used.

    The rest is up to :class:`wsolbench.engine.backward.Backward`. cuDNN's attention is off, which
    torch takes even where its backward pass is not repeatable.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory before it was written, and filling it all costs up to a sixth.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    allow_tf32(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


def keep_freed_memory(device: torch.device) -> None:
    """Let glibc use freed memory again instead of handing it back, where the processor computes.

    Each tensor of a training step would otherwise be made of fresh pages, which the system clears
    one by one: half the time of a small convolutional network. Elsewhere (macOS, musl) nothing
    happens.
    """
    known = device.type == "cpu" and os.name == "posix"
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if known else None
    if mallopt is not None:
        for parameter, value in _MALLOC:
            mallopt(parameter, value)
