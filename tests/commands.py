"""The command line as tests use it: within the process, with small settings."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolbench.cli import main

SMALL = ("--set", "pretrained=false", "image_size=32", "resize=36", "--batch-size", "8")
VIT = ("--backbone", "test_vit")
CNN = ("--backbone", "test_resnet")


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


def call(*arguments: object, entry: Callable[[Sequence[str]], int] = main) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = entry([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


def succeed(*arguments: object, entry: Callable[[Sequence[str]], int] = main) -> Done:
    done = call(*arguments, entry=entry)
    assert done.code == 0, done.err
    return done


def files_below(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def records(results: Path) -> list[dict[str, Any]]:
    files = sorted((results / "measured").glob("*.json"))
    return [json.loads(file.read_text("utf-8")) for file in files]


def one_line(done: Done, code: int, said: str) -> None:
    """Assert that a command failed as users are promised."""
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert said in done.err
