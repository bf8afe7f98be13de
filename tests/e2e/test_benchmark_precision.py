"""The script that compares precisions: a row for each way, and changes beside fp32 alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SMALL, VIT
from scripts import benchmark


@pytest.fixture
def script(tiny_cub: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script with one method on a tiny dataset, without the compiler."""
    module = benchmark("precision", monkeypatch)
    words = ("--dataset", "cub", "--data-root", tiny_cub, *VIT, *SMALL, "--epochs", 1)
    monkeypatch.setattr(module, "WORDS", words)
    kept = [way for way in module.ways(torch.device("cpu")) if "compiled" not in way[0]]
    monkeypatch.setattr(module, "ways", lambda device: kept)
    monkeypatch.setattr(sys, "argv", ["precision.py", "--device", "cpu", "--method", "sat"])
    return module


def test_each_way_has_a_row(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    titles, _, plain, bf16, other = ([c.strip() for c in line.split("|")[1:-1]] for line in lines)
    assert [row[:2] for row in (plain, bf16, other)] == [
        ["SAT", "fp32"],
        ["SAT", "bf16"],
        ["SAT", "fp32, seed 1"],
    ]
    assert titles[2:4] == ["GT-known Loc", "Top-1 Loc"]
    assert all("(" not in cell for cell in plain)
    losses = [row[-1].partition(" (") for row in (bf16, other)]
    for loss, _, change in losses:
        assert float(loss) - float(plain[-1]) == pytest.approx(float(change[:-1]), abs=2e-4)
    assert abs(float(losses[0][2][:-1])) < abs(float(losses[1][2][:-1]))
