"""Where a benchmark ran: the first line of what each prints."""

from __future__ import annotations

import torch

from wsolbench import environment
from wsolbench.columns import commit_of
from wsolbench.parallel import usable_cores


def heading(device: torch.device) -> str:
    """Name the device, the version of torch and the commit."""
    here = environment.collect(device)
    cores = f", {usable_cores()} cores" if here.device_type == "cpu" else ""
    return f"{here.device}{cores}, torch {here.torch}, commit {commit_of(here)}"
