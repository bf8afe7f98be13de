"""Baselines and two-stage runs on drawn birds: what each sees, what is made first, what stays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import CNN, SMALL, call, one_line, records, succeed

from wsolbench.engine.checkpoint import Progress
from wsolbench.engine.trainer import Trainer
from wsolbench.registry import DATASETS, METHODS
from wsolbench.types import Batch

DATASET = "toybirds-small"


def arguments(data: Path, results: Path, method: str, *more: object) -> list[object]:
    places = ["--dataset", DATASET, "--data-root", data, "--results", results]
    first = ["targets.backbone=test_resnet"] if method == "psol" else []
    fields = ["--epochs", 1, "--set", "holdout=2", *first, *more]
    return ["--method", method, *CNN, *SMALL, *places, *fields]


def by_method(results: Path) -> dict[str, dict[str, Any]]:
    return {record["recipe"]["method"]: record for record in records(results)}


@pytest.fixture
def data(tiny_toybirds: Path) -> Path:
    """12 species with 3 training pictures and a test picture each."""
    return tiny_toybirds


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that the second stage learns from."""
    cls: Any = METHODS.get("psol")
    batches: list[Batch] = []
    step = cls.training_step

    def watched(self: Any, batch: Batch, progress: float) -> Any:
        batches.append(batch)
        return step(self, batch, progress)

    monkeypatch.setattr(cls, "training_step", watched)
    return batches


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that the method without training looks at."""
    cls: Any = METHODS.get("ddt")
    batches: list[Batch] = []
    fit = cls.fit

    def watched(self: Any, given: Iterable[Batch]) -> None:
        assert not self.training
        assert not torch.is_grad_enabled()
        batches.extend(given)
        fit(self, batches)

    monkeypatch.setattr(cls, "fit", watched)
    return batches


def test_who_looks_at_training_images_sees_each_once_and_class_by_class(
    data: Path, tmp_path: Path, fitted: list[Batch]
) -> None:
    succeed("run", *arguments(data, tmp_path, "ddt", "train_labels=shuffled"))
    (record,) = records(tmp_path)
    assert (record["supervision"], record["recipe"]["epochs"]) == ("shuffled labels", 0)
    ids = [image_id for batch in fitted for image_id in batch.image_id]
    dataset: Any = DATASETS.get(DATASET)(data, 2)
    assert sorted(ids) == sorted(s.image_id for s in dataset.samples("train"))
    labels = torch.cat([batch.label for batch in fitted])
    assert torch.equal(labels, labels.sort().values)
    official = {s.image_id: s.label for s in dataset.samples("train")}
    assert [official[i] for i in ids] != labels.tolist()


def test_baselines_and_both_stages_say_what_they_saw(data: Path, tmp_path: Path) -> None:
    for methods in ("fsl,ddt", "psol"):
        succeed("run", *arguments(data, tmp_path, methods))
    made = by_method(tmp_path)
    counts = {
        name: (r["supervision"], r["dataset"]["train"], r["dataset"]["val"], len(r["history"]))
        for name, r in made.items()
    }
    assert counts == {
        "fsl": ("boxes", 12, 12, 1),
        "ddt": ("labels", 12, 24, 0),
        "psol": ("labels, another run (ddt)", 12, 24, 1),
    }
    assert all("gt_known_loc" in r["figures"] for r in made.values())
    (first,) = made["psol"]["inputs"]
    assert (first["role"], first["method"]) == ("targets", "ddt")
    assert first["recipe_key"] == made["ddt"]["recipe_key"]
    assert (first["protocol"], first["threshold"]) == ("standard", made["ddt"]["threshold"])
    page = (tmp_path / "leaderboard.md").read_text("utf-8")
    ranked, cost = [x for x in page.splitlines() if "| FSL baseline (trained on boxes) " in x]
    assert ranked.startswith("| - ")
    assert "default" in cost


def test_boxes_that_trained_a_run_choose_no_threshold_when_it_is_scored_again(
    data: Path, tmp_path: Path
) -> None:
    succeed("run", *arguments(data, tmp_path, "fsl"))
    (run,), file = (tmp_path / "runs").iterdir(), tmp_path / "scores.json"
    places = ["--dataset", DATASET, "--data-root", data, "--protocol", "standard", "--json", file]
    succeed("score", "--run", run, *places)
    (made,), again = records(tmp_path), json.loads(file.read_text("utf-8"))
    assert again["figures"] == made["figures"]
    assert again["threshold"] == pytest.approx(made["threshold"], abs=1e-6)


def test_what_runs_build_on_is_made_anew_too_but_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    run = Trainer.run

    def watched(self: Trainer) -> Progress:
        if not self.checkpoint.exists():
            trained.append(self.recipe.method)
        return run(self)

    monkeypatch.setattr(Trainer, "run", watched)
    of_cam = arguments(data, tmp_path, "psol", "targets.method=cam")
    succeed("run", *of_cam)
    succeed("run", *of_cam, "--no-resume")
    assert trained == ["cam", "psol"] * 2
    both = arguments(data, tmp_path, "grad-cam,layer-cam")
    succeed("run", *both, "--no-resume")
    assert trained[4:] == ["cam"]


def test_the_first_run_is_made_where_it_is_missing_and_only_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_cam = arguments(data, tmp_path, "psol", "targets.method=cam")
    succeed("run", *of_cam)
    trained = {file.parent.name.split(f"-{DATASET}")[0] for file in tmp_path.glob("runs/*/*.pt")}
    assert trained == {"cam", "psol"}
    (before,) = records(tmp_path)
    assert before["supervision"] == "labels, another run (cam)"

    def refuse(self: Trainer, epoch: int) -> None:
        raise AssertionError("an epoch was trained")

    monkeypatch.setattr(Trainer, "_epoch", refuse)
    succeed("run", *of_cam)
    (after,) = records(tmp_path)
    assert (after["figures"], after["inputs"]) == (before["figures"], before["inputs"])
    succeed("run", *arguments(data, tmp_path, "cam"))  # the very run that was made on the way
    (first,) = before["inputs"]
    cam = by_method(tmp_path)["cam"]
    assert (cam["recipe_key"], cam["threshold"]) == (first["recipe_key"], first["threshold"])


def test_the_second_stage_learns_the_first_ones_boxes(
    data: Path, tmp_path: Path, seen: list[Batch]
) -> None:
    """The first one's are all the same square in the middle of the picture, 36 pixels a side."""
    succeed("run", *arguments(data, tmp_path, "psol", "targets.method=center-box"))
    (first,) = records(tmp_path)[0]["inputs"]
    assert first["threshold"] is not None
    boxes = torch.cat([box for batch in seen for box in batch.boxes or ()])
    assert len(boxes) == 12
    extent = boxes[:, 2:] - boxes[:, :2]
    assert torch.allclose(extent, extent[0, 0].expand_as(extent), atol=0.2)
    # a crop of 32 pixels begins 0 to 4 pixels from the edge, and the middle is 18 from it
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert ((middle > 13.8) & (middle < 18.2)).all()
    assert len(middle.round().unique(dim=0)) > 1


def test_what_learns_from_boxes_by_way_of_another_run_is_not_ranked(
    data: Path, tmp_path: Path
) -> None:
    succeed("run", *arguments(data, tmp_path, "psol", "targets.method=fsl"))
    (record,) = records(tmp_path)
    assert record["supervision"] == "boxes, another run (fsl)"
    page = (tmp_path / "leaderboard.md").read_text("utf-8")
    lines = [line for line in page.splitlines() if "(trained on boxes)" in line]
    ranked, cost = [line for line in lines if line.startswith("|")]
    assert ranked.startswith("| - ")
    assert "default" in cost


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("fsl", ["holdout=1"], "a hold-out of 1 images a class leaves no boxes to train on"),
        ("psol", ["targets.method=nothing"], "unknown method 'nothing'"),
        ("psol", ["targets=cam"], "name a method, as --set targets.method=NAME"),
        ("psol", ["targets.protocol=[wsoleval]"], "that no test image chose"),
        ("psol", ["targets.seed=0"], "'targets.seed' is that of the whole run; leave it out"),
        ("cam", ["classifier.method=cam", "classifier.precision=bf16"], "that of the whole run"),
        ("cam", ["targets.method=ddt"], "method 'cam' has no 'targets'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    data: Path, tmp_path: Path, method: str, more: list[str], said: str
) -> None:
    done = call("run", *arguments(data, tmp_path / "results", method, *more))
    one_line(done, 2, said)
    assert not (tmp_path / "results" / "runs").exists()


def test_maps_of_a_method_of_boxes_are_refused_before_anything_is_trained(
    data: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    words = arguments(data, results, "psol", "--save-maps", tmp_path / "maps")
    one_line(call("run", *words), 2, "psol gives no maps; leave out --save-maps")
    assert not list(results.glob("runs/*"))
