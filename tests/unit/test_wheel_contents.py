"""The check of the archives notices what is missing and what is too many."""

from __future__ import annotations

from pathlib import Path

import pytest
from wheel_contents import complaints, expected, only


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("wsolbench/report/page.html", "wsolbench/a.pyc", "methods/one.yaml", "tests/b.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


def test_a_faithful_wheel_passes(tree: Path) -> None:
    pairs = expected(tree)
    assert pairs == {
        "wsolbench/report/page.html": "wsolbench/report/page.html",
        "methods/one.yaml": "wsolbench/methods/one.yaml",
    }
    assert complaints(tree, set(pairs.values()), {*pairs, "README.md"}) == []


def test_each_difference_is_named(tree: Path) -> None:
    wheel = {"wsolbench/report/page.html", "tests/b.py"}
    assert complaints(tree, wheel, {"methods/one.yaml"}) == [
        "not in the wheel: wsolbench/methods/one.yaml",
        "not in the checkout: tests/b.py of the wheel",
        "not in the sdist: wsolbench/report/page.html",
    ]


def test_there_must_be_one_archive(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected one file, found 0"):
        only(tmp_path, "*.whl")
