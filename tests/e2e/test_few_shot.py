"""Few-shot grids from command to table: what is trained on, and what an interruption costs."""

from __future__ import annotations

import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from commands import CNN, SMALL, call, files_below, one_line, records, succeed

from wsolbench.cli import benchmark_main
from wsolbench.dataset import few_shots
from wsolbench.engine.trainer import Trainer
from wsolbench.registry import DATASETS, METHODS
from wsolbench.types import Batch

GRID = ["--shots", "1,2,all", "--draws", 2, "--epochs", 2, "--set", "iterations=5"]


def words(data: Path, results: Path, *more: object) -> list[object]:
    places = ["--dataset", "cub", "--data-root", data, "--results", results]
    return ["run", "--method", "cam", *CNN, *SMALL, *places, *more]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """All batches that are trained on."""
    cls = METHODS.get("cam")
    real = cls.training_step
    batches: list[Batch] = []

    def note(self: Any, batch: Batch, progress: float) -> Any:
        batches.append(batch)
        return real(self, batch, progress)

    monkeypatch.setattr(cls, "training_step", note)
    return batches


def test_a_grid_trains_as_long_on_nested_images_and_goes_on_where_it_stopped(
    tiny_cub: Path, tmp_path: Path, seen: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, results = METHODS.get("cam"), tmp_path / "results"
    counted = cls.training_step

    def interrupt(self: Any, batch: Batch, progress: float) -> Any:
        if len(seen) == 12:  # in the middle of the third run
            raise KeyboardInterrupt
        return counted(self, batch, progress)

    command = words(tiny_cub, results, *GRID)
    with monkeypatch.context() as patch:
        patch.setattr(cls, "training_step", interrupt)
        assert call(*command).code == 130
    assert len(records(results)) == 2
    done = succeed(*command)
    made = records(results)
    assert len(made) == 5
    assert len(seen) == 12 + 3 + 5 + 5  # the two of the third run's broken part once more
    assert {len(batch.label) for batch in seen} == {8}
    assert {r["iterations"] for r in made} == {5}
    assert {r["dataset"]["val"] for r in made} == {15}
    trained = sorted(r["dataset"]["train"] for r in made)
    assert trained == [3, 3, 6, 6, 9]

    data = DATASETS.get("cub")(tiny_cub, 5)
    allowed = {s.image_id for s in few_shots(data.samples("train"), 1, 0, data.class_names)}
    assert {i for batch in seen[:5] for i in batch.image_id} == allowed
    assert "cam seed 0 shots 2 draw 1 standard: " in done.out
    assert "few training images a class" in done.out
    page = (results / "leaderboard.md").read_text("utf-8")
    assert "±" in next(line for line in page.splitlines() if "GT-known" in line and "CAM" in line)

    def refuse(*_: Any) -> None:
        raise AssertionError("an epoch was trained")

    monkeypatch.setattr(Trainer, "_epoch", refuse)
    table = tmp_path / "points.csv"
    succeed(*command)
    assert "few training images" in succeed("table", "--results", results, "--few-shot", table).out
    assert table.read_text("utf-8").count("\n") > 3


def test_a_recorded_command_makes_the_draw_again(
    tiny_cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLBENCH_DATA", str(tiny_cub))
    grid = ["--shots", 1, "--draws", 2, "--epochs", 1]
    succeed(*words(tiny_cub, tmp_path / "first", *grid))
    by_draw: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    first = records(tmp_path / "first")
    # without a number of iterations they are those of all images: two batches of nine
    assert {r["iterations"] for r in first} == {2}
    succeed(*shlex.split(first[1]["command"])[2:], "--results", "again", entry=benchmark_main)
    for record in (*first, *records(Path("again"))):
        by_draw[record["recipe"]["draw"]].append(record)
    assert {draw: len(found) for draw, found in by_draw.items()} == {0: 1, 1: 2}
    for key in ("figures", "curves", "recipe", "recipe_key", "history", "command"):
        assert by_draw[1][0][key] == by_draw[1][1][key]
    assert by_draw[0][0]["history"] != by_draw[1][0]["history"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder without data."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shots", "1,4"], "class '001.Red_Finch' has 3 training images beside the hold-out"),
        (["--shots", "0"], "takes numbers from 1 up or 'all', got '0'"),
        (["--shots", "1,x"], "takes numbers from 1 up or 'all', got '1,x'"),
        (["--draws", 2], "--draws are choices of images; say how many with --shots"),
        (["--shots", 1, "--draws", 0], "option 'draws': Input should be greater than or equal"),
        (["--shots", 1, "--set", "draw=2"], "'draw' is set by --shots and --draws here"),
        (["--set", "draw=2"], "only a training on some images a class has draws"),
        (["--shots", 1, "--set", "iterations=2"], "2 cannot be cut into 15 parts"),
    ],
    ids=str,
)
def test_wrong_grids_leave_no_trace(tiny_cub: Path, more: list[object], said: str) -> None:
    one_line(call(*words(tiny_cub, Path("results"), *more)), 2, said)
    assert files_below(Path.cwd()) == set()
