"""The script that times training: it runs, and it fails where the two forms differ."""

from __future__ import annotations

import re
import sys
from typing import Any

import oracles
import pytest
from scripts import benchmark


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script on a network of six narrow blocks and pictures of 32 pixels."""
    module = benchmark("training", monkeypatch)
    monkeypatch.setattr(module, "BACKBONES", {"DeiT-Tiny": "test_vit"})
    for name, value in {"SIDE": 32, "RESIZED": 36, "CLASSES": 5, "PHOTOGRAPHS": 6}.items():
        monkeypatch.setattr(module, name, value)
    words = ["training.py", "--device", "cpu", "--batch-size", "2", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--precision", "32"])
    return module


def test_both_tables_are_whole(script: Any, capsys: pytest.CaptureFixture[str]) -> None:
    script.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    first, second = lines[:6], lines[6:]
    kinds = {tuple(line.split(" | ")[:4]) for line in first[2:]}
    whats = ("training step", "inference")
    assert kinds == {(f"| {m}", "DeiT-Tiny", "fp32", w) for m in ("SAT", "TS-CAM") for w in whats}
    assert len(second) == 4
    for table in (first, second):
        assert len({line.count("|") for line in table}) == 1
    for line in (*first[2:], *second[2:]):
        rates = [float(x) for x in re.findall(r"\| (\d+\.\d+)(?= \|)", line)]
        assert len(rates) >= 2
        assert min(rates) > 0


@pytest.mark.parametrize("name", ["lean_sat", "lean_ts_cam"])
def test_it_fails_where_the_forms_differ(
    script: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    literal: Any = getattr(oracles, name)

    def other(*args: Any, **kwargs: Any) -> Any:
        logits, maps = literal(*args, **kwargs)
        return logits, 1.001 * maps

    monkeypatch.setattr(oracles, name, other)
    with pytest.raises(AssertionError, match=r"of literal differ by"):
        script.main()
