"""Files as modules that tests may change: scripts of ``benchmarks/``, plugins just written."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import ``benchmarks/<name>.py`` for one test."""
    return imported(ROOT / "benchmarks" / f"{name}.py", monkeypatch)


def imported(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a file for one test; what it does to the path is undone with it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module
