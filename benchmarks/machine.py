"""Where a benchmark ran: the first line of what each prints."""

from __future__ import annotations

import torch

from wsolbench import environment
from wsolbench.parallel import usable_cores


def heading(device: torch.device) -> str:
    """Name the device, the version of torch and the commit."""
    here = environment.collect(device)
    cores = f", {usable_cores()} cores" if here.device_type == "cpu" else ""
    commit = f"commit {here.commit[:10]}" if here.commit else "no commit"
    changed = " with changes" if here.dirty else ""
    return f"{here.device}{cores}, torch {here.torch}, {commit}{changed}"
