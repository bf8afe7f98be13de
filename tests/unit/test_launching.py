"""What is made of the variables by which a launcher numbers processes."""

from __future__ import annotations

import pytest
import torch

from wsolbench import processes
from wsolbench.errors import InputError

WHOLE = {
    "WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("changed", "value", "said"),
    [
        ("WORLD_SIZE", "x", "WORLD_SIZE=x is no number; start processes by torchrun"),
        ("RANK", None, "WORLD_SIZE is set and RANK is not; start processes by torchrun"),
        ("LOCAL_RANK", None, "WORLD_SIZE is set and LOCAL_RANK is not"),
        ("MASTER_PORT", "", "MASTER_PORT= is no number"),
    ],
)
def test_half_a_launcher_is_refused(
    monkeypatch: pytest.MonkeyPatch, changed: str, value: str | None, said: str
) -> None:
    for name, given in {**WHOLE, changed: value}.items():
        if given is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, given)
    with pytest.raises(InputError, match=said):
        processes.join(torch.device("cpu"))


@pytest.mark.parametrize(
    ("count", "here", "command"),
    [
        (1, None, "python"),
        (4, "4", "torchrun --nproc-per-node 4"),
        (8, "4", "torchrun --nnodes 2 --nproc-per-node 4"),
    ],
)
def test_a_command_starts_as_many_processes_on_as_many_machines(
    monkeypatch: pytest.MonkeyPatch, count: int, here: str | None, command: str
) -> None:
    monkeypatch.setattr(processes, "count", lambda: count)
    if here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert processes.launcher() == command
