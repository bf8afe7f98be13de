"""The script that kills runs: it counts what was lost, and fails where a run ends otherwise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts import benchmark


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script with two places to kill a run in, once each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    module = benchmark("kills", monkeypatch)
    monkeypatch.setattr(module, "PLACES", (module.PLACES[1], module.PLACES[4]))
    monkeypatch.setattr(sys, "argv", ["kills.py", "--kills", "1"])
    return module


def test_it_counts_what_a_kill_cost(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script.main()
    said = capsys.readouterr().out
    assert "1 run killed in each place; a run has 3 epochs of 8 steps" in said
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()[4:]]
    assert rows == [
        ["writing a checkpoint", "1", "8.0", "8", "0.0", "0", "1 of 1"],
        ["writing the record", "1", "0.0", "0", "27.0", "27", "1 of 1"],
    ]


def test_it_fails_where_a_run_ends_otherwise(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = script._killed

    def other(results: Path, where: str | None, after: int) -> Any:
        work = honest(results, where, after)
        if results.name == "whole":
            (checkpoint,) = (results / "runs").glob("*/checkpoint.pt")
            state = torch.load(checkpoint, weights_only=True)
            next(iter(state["model"].values())).view(-1)[0] += 1e-6
            torch.save(state, checkpoint)
        return work

    monkeypatch.setattr(script, "_killed", other)
    with pytest.raises(SystemExit, match="writing a checkpoint: it ends in another result"):
        script.main()
