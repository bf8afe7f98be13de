"""Each dataset from its official layout to a row in the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import SMALL, VIT, records, succeed
from miniatures import MAKERS

from wsolbench.cli import benchmark_main

HOLDOUTS = {"ilsvrc": "ImageNetV2 Threshold0.7", "openimages30k": "OpenImages30k val"}
MASKED = {"openimages30k": ["pxap"], "oxford-pet": ["pxap", "gt_known_loc"]}


@pytest.mark.parametrize("name", MAKERS)
def test_one_epoch_of_sat(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.getfixturevalue(f"tiny_{name.replace('-', '_')}")
    done = succeed(
        *("--method", "sat", "--dataset", name, "--data-root", root, "--results", tmp_path),
        *(*VIT, *SMALL, "--set", "holdout=1", "--epochs", "1", "--device", "cpu"),
        entry=benchmark_main,
    )
    assert "SAT" in done.out
    (record,) = records(tmp_path)
    assert record["dataset"]["holdout"] == HOLDOUTS.get(name, "1 training images a class")
    assert record["dataset"]["classes"] == 3
    for figure in MASKED.get(name, ["gt_known_loc", "top1_loc"]):
        assert 0 <= record["figures"][figure] <= 100
    if name in MASKED:
        assert ("gt_known_loc" in record["figures"]) == ("gt_known_loc" in MASKED[name])
    assert "SAT" in (tmp_path / "leaderboard.md").read_text()


def test_one_image_a_class_of_imagenet(tiny_ilsvrc: Path, tmp_path: Path) -> None:
    """The few-shot run: hold-out and test stay what they are."""
    succeed(
        *("--method", "sat", "--dataset", "ilsvrc", "--shots", "1", "--data-root", tiny_ilsvrc),
        *(*VIT, *SMALL, "--epochs", "1", "--device", "cpu", "--results", tmp_path),
        entry=benchmark_main,
    )
    (record,) = records(tmp_path)
    assert record["recipe"]["shots"] == 1
    assert record["dataset"]["holdout"] == HOLDOUTS["ilsvrc"]
    assert (record["dataset"]["val"], record["dataset"]["test"]) == (30, 6)
