from pathlib import Path

from readme import README, ROOT, expected

from wsolbench.analysis import row_intervals
from wsolbench.leaderboard import FILE_NAME, leaderboard, read_reported
from wsolbench.registry import METHODS
from wsolbench.results import load_results


def test_the_readme_shows_the_committed_records() -> None:
    text = README.read_text("utf-8")
    assert text == expected(text), "run `make readme`"


def test_the_leaderboard_is_made_of_the_committed_records() -> None:
    results, problems = load_results(ROOT / "results")
    titles = {name: METHODS.get(name).info.title for name in METHODS.names()}
    assert problems == []
    page = (ROOT / "results" / Path(FILE_NAME)).read_text("utf-8")
    intervals, _ = row_intervals(results, ROOT / "results")
    assert page == leaderboard(results, read_reported(), titles, intervals), "run `wsolbench table`"
