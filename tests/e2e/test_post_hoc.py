"""Post-hoc methods from command to record: one training that all of them look into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import CNN, SMALL, VIT, Done, call, one_line, records, succeed

from wsolbench.engine.trainer import Trainer

LOOKING = ("grad-cam", "grad-cam-plus-plus", "layer-cam", "score-cam")
DATA = ("--dataset", "toybirds-small", "--epochs", "1", *SMALL)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder without data."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method of each epoch that is trained."""
    trained: list[str] = []
    original = Trainer._epoch

    def noted(self: Trainer, epoch: int) -> None:
        trained.append(self.recipe.method)
        original(self, epoch)

    monkeypatch.setattr(Trainer, "_epoch", noted)
    return trained


def run(data: Path, method: str, *more: object) -> Done:
    words = ["--method", method, *DATA, "--set", "holdout=1", *more]
    return succeed("run", *words, "--data-root", data)


def by_method(results: Path = Path("results")) -> dict[str, dict[str, Any]]:
    return {r["recipe"]["method"]: r for r in records(results)}


def test_one_training_serves_all(tiny_toybirds: Path, epochs: list[str]) -> None:
    run(tiny_toybirds, ",".join([*LOOKING, "cam"]), *CNN)
    assert epochs == ["cam"]
    made = by_method()
    assert made.keys() == {*LOOKING, "cam"}
    own = made["cam"]
    for name in LOOKING:
        record = made[name]
        (stamp,) = record["inputs"]
        assert (stamp["role"], stamp["of"], stamp["method"]) == ("source", name, "cam")
        assert stamp["recipe_key"] == own["recipe_key"]
        assert (Path("results") / "runs" / stamp["run"] / "checkpoint.pt").is_file()
        assert stamp["sha256"] == made[LOOKING[0]]["inputs"][0]["sha256"]
        assert record["supervision"] == "labels, another run (cam)"
        assert record["figures"]["top1_cls"] == own["figures"]["top1_cls"]
        assert record["cost"]["trainable_parameters"] == 0
        assert record["cost"]["train_seconds"] == 0
        assert record["cost"]["macs"] > own["cost"]["macs"] or name == "layer-cam"
    table = (Path("results") / "leaderboard.md").read_text("utf-8")
    assert table.count("### Toybirds") == 1


def test_a_transformer_and_its_weights(tiny_toybirds: Path, epochs: list[str]) -> None:
    vit = (*VIT, "--set", "holdout=1", "source.method=plain-classifier")
    run(tiny_toybirds, "attention-rollout,grad-cam", *vit)
    assert epochs == ["plain-classifier"]
    (checkpoint,) = Path("results/runs").glob("*/checkpoint.pt")
    first = by_method()["grad-cam"]
    run(tiny_toybirds, "grad-cam", *vit, "--weights", checkpoint, "--results", "again")
    assert epochs == ["plain-classifier"]
    again = by_method(Path("again"))["grad-cam"]
    assert again["figures"] == first["figures"]
    assert again["inputs"][0]["sha256"] == first["inputs"][0]["sha256"]
    assert again["recipe_key"] != first["recipe_key"]
    assert again["pretraining"].startswith("file checkpoint.pt")


def test_class_scores_of_another_run(tiny_toybirds: Path, epochs: list[str]) -> None:
    run(tiny_toybirds, "center-box,cam", *CNN)
    before = by_method()
    run(tiny_toybirds, "center-box", *CNN, "--set", "classifier.method=cam", "--results", "results")
    assert epochs == ["cam"]
    (made,) = (r for r in records(Path("results")) if r["inputs"])
    assert made["figures"]["gt_known_loc"] == before["center-box"]["figures"]["gt_known_loc"]
    for figure in ("top1_cls", "top5_cls"):
        assert made["figures"][figure] == before["cam"]["figures"][figure]
    assert made["figures"]["top1_loc"] <= made["figures"]["top1_cls"]
    assert (made["inputs"][0]["role"], made["inputs"][0]["method"]) == ("classifier", "cam")
    page = Path("results/leaderboard.md").read_text("utf-8")
    assert "Top-1 Cls, external classifier" in page


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--method", "grad-cam", "--set", "source.method=can"), "did you mean 'cam'"),
        (("--method", "grad-cam", "--set", "source.method=center-box"), "no backbone to look into"),
        (("--method", "cam", "--set", "source.method=cam"), "'cam' has no 'source'"),
        (("--method", "grad-cam", *CNN, "--set", "options.layer=trunk.layer7"), "no layer"),
        (("--method", "attention-rollout", *CNN), "needs a plain ViT"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_before_training(
    tiny_toybirds: Path, epochs: list[str], more: tuple[str, ...], said: str
) -> None:
    done = call("run", *DATA, "--set", "holdout=1", *more, "--data-root", tiny_toybirds)
    one_line(done, 2, said)
    assert not epochs
