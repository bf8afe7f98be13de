"""What a record says about the machine and the code that made it; no host names, no paths."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import timm
import torch

from wsolbench import processes
from wsolbench.results import Environment

_CHECKOUT = Path(__file__).resolve().parent.parent
_CPU_INFO = Path("/proc/cpuinfo")


def collect(device: torch.device, compiled: bool = False) -> Environment:
    """Describe the code and the machine.

    Call it when a run starts: the checkout may move on while it trains.

    Args:
        device: where it computes.
        compiled: whether through :mod:`wsolbench.compiled`.
    """
    commit, dirty = code_state()
    return Environment(
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        torch=str(torch.__version__),
        torchvision=_torchvision(),
        timm=timm.__version__,
        numpy=np.__version__,
        opencv=cv2.__version__,
        platform=f"{platform.system()} {platform.machine()}",
        device_type="cuda" if device.type == "cuda" else "cpu",
        device=device_name(device),
        threads=torch.get_num_threads(),
        compiled=compiled,
        processes=processes.count(),
    )


@cache
def code_state() -> tuple[str | None, bool | None]:
    """Return :func:`git_state` of the code that runs: asked once, the checkout may move on."""
    return git_state(_CHECKOUT)


def git_state(checkout: Path) -> tuple[str | None, bool | None]:
    """Return commit and whether there are changes beside ``results/``; (None, None) outside of git.

    A folder inside another project's checkout (an environment's site-packages) is outside.
    """
    root = _git(checkout, "rev-parse", "--show-toplevel")
    commit = _git(checkout, "rev-parse", "HEAD")
    if not root or not commit or Path(root).resolve() != checkout.resolve():
        return None, None
    # A run's own records must not make the next run's checkout dirty.
    changes = _git(checkout, "status", "--porcelain", "--", ".", ":(exclude)results")
    return commit, None if changes is None else bool(changes)


def device_name(device: torch.device) -> str:
    """Return the model of the accelerator or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_model() or platform.processor() or platform.machine()


def _cpu_model() -> str | None:
    if not _CPU_INFO.is_file():
        return None
    for line in _CPU_INFO.read_text("utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _torchvision() -> str | None:
    # its import takes seconds; the version is all that is wanted
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook's GIT_DIR would point elsewhere; an optional lock would stop a commit made meanwhile.
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=clean, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
