"""The README's tables: made of what is committed in ``results``, by ``python tests/readme.py``."""

from __future__ import annotations

import re
from pathlib import Path

from wsolbench import few_shot, tables
from wsolbench.analysis import row_intervals
from wsolbench.registry import METHODS
from wsolbench.results import load_results

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- leaderboard: begin [^\n]*-->\n).*(<!-- leaderboard: end -->)", re.DOTALL)
#: what a script of ``benchmarks/`` printed
PRINTED = re.compile(
    r"(<!-- benchmark (\w+): begin [^\n]*-->\n).*?(<!-- benchmark \2: end -->)", re.DOTALL
)


def expected(text: str) -> str:
    """Return the README's text with the tables of ``results`` in their place."""
    return PRINTED.sub(_printed, _with_leaderboard(text))


def _printed(found: re.Match[str]) -> str:
    said = (ROOT / "results" / "benchmarks" / f"{found[2]}.md").read_text("utf-8").strip()
    return f"{found[1]}\n{said}\n\n{found[3]}"


def _with_leaderboard(text: str) -> str:
    results, problems = load_results(ROOT / "results")
    assert not problems, problems
    titles = {name: METHODS.get(name).info.title for name in METHODS.names()}
    intervals, unusable = row_intervals(results, ROOT / "results")
    assert not unusable, unusable
    parts = (tables.markdown(results, titles, intervals), few_shot.markdown(results, titles))
    measured = "\n\n".join(part for part in parts if part) or "No runs yet."
    assert BLOCK.search(text), "the README lost its leaderboard markers"
    return BLOCK.sub(lambda found: f"{found[1]}\n{measured}\n\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(expected(README.read_text("utf-8")), "utf-8")
