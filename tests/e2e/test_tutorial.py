"""The tutorial of CONTRIBUTING.md, command by command, from an empty file to a row."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from projects import ROOT, run


def commands(section: str) -> list[list[str]]:
    """Words of each command in the shell blocks of a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sh\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_the_tutorial_ends_with_a_row(tiny_cub: Path, tmp_path: Path) -> None:
    """As it stands there, but for the folder: the checkout is not to be written to."""
    folder = tmp_path / "methods"
    folder.mkdir()
    real = {"python": [sys.executable], "run_benchmark.py": [str(ROOT / "run_benchmark.py")]}
    real |= {"DATA": [str(tiny_cub)], "new-method": ["new-method", "--folder", str(folder)]}
    said = []
    for words in commands("A new method"):
        spoken = [part for word in words for part in real.get(word, [word])]
        said.append(run(*spoken, cwd=tmp_path, WSOLBENCH_PATH=str(tmp_path)))
    assert said[0].splitlines() == [
        f"wrote {folder / 'my_method.py'}",
        f"wrote {folder / 'my_method.yaml'}",
        "next: wsolbench check my-method",
    ]
    assert "failed" not in said[1]
    assert "passed          gradients" in said[1]
    board = (tmp_path / "try" / "leaderboard.md").read_text("utf-8")
    (row,) = [line for line in board.splitlines() if line.startswith("| 1 ")]
    assert row.split("|")[2].strip() == "My method"
    assert row in said[-1]
