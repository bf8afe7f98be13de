"""What benchmarks print alike: where they ran, and the rows of their tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wsolbench import environment
from wsolbench.columns import commit_of
from wsolbench.parallel import usable_cores


def heading(device: torch.device) -> str:
    """Name the device, the version of torch and the commit."""
    here = environment.collect(device)
    cores = f", {usable_cores()} cores" if here.device_type == "cpu" else ""
    return f"{here.device}{cores}, torch {here.torch}, commit {commit_of(here)}"


def print_titles(titles: Sequence[str]) -> None:
    """Begin a table."""
    print_row(titles)
    print_row(["---"] * len(titles))


def print_row(cells: Sequence[str]) -> None:
    """Print a row of a table at once, for whoever waits."""
    print(f"| {' | '.join(cells)} |", flush=True)
