"""Suites, methods without training, controls and checkpoints, from command to table."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import CNN, SMALL, VIT, call, files_below, one_line, records, succeed
from scripts import imported

from wsolbench import suite
from wsolbench.cli import benchmark_main
from wsolbench.engine.trainer import Trainer
from wsolbench.errors import WsolbenchError
from wsolbench.examples import chosen
from wsolbench.inputs import SharedData
from wsolbench.registry import DATASETS, METHODS
from wsolbench.types import Batch

SET = ["pretrained=false", "image_size=32", "resize=36", "batch_size=8"]
RUNS: list[dict[str, Any]] = [
    {"method": ["center-box", "cam"], "dataset": "cub", "backbone": "test_resnet", "set": SET},
    {
        "method": "sat",
        "dataset": "cub",
        "backbone": "test_vit",
        "set": [*SET, "train_labels=shuffled"],
        "epochs": 2,
    },
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder without data."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("WSOLBENCH_DATA", raising=False)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an epoch is trained or a training image asked for."""

    def refuse(*_: Any) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(Trainer, "_epoch", refuse)
    monkeypatch.setattr(SharedData, "images", refuse)


def write_suite(folder: Path, runs: list[dict[str, Any]] = RUNS, name: str = "mine") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"title": "Three rows", "runs": runs}), "utf-8")
    return file


def by_method(results: Path) -> dict[str, dict[str, Any]]:
    """Return the records of the suite, which runs under a seed of its own."""
    found = [r for r in records(results) if r["recipe"]["seed"] == 3]
    assert len({r["recipe"]["method"] for r in found}) == len(found)
    return {r["recipe"]["method"]: r for r in found}


@dataclass(frozen=True)
class Ran:
    """A finished suite: its results folder and what it printed."""

    results: Path
    out: str


@pytest.fixture(scope="module")
def ran(tiny_cub: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The suite above, run with options for all of it."""
    folder = tmp_path_factory.mktemp("suite")
    words = ["--suite", write_suite(folder), "--data-root", tiny_cub, "--seed", 3, "--epochs", 1]
    done = succeed("run", *words, "--results", folder / "results")
    return Ran(folder / "results", done.out)


def test_a_suite_runs_everything_with_the_options_for_all(ran: Ran) -> None:
    made = by_method(ran.results)
    assert set(made) == {"center-box", "cam", "sat"}
    assert {name: r["recipe"]["epochs"] for name, r in made.items()} == {
        "center-box": 0,
        "cam": 1,
        "sat": 1,
    }
    assert {r["recipe"]["seed"] for r in made.values()} == {3}
    trained = {f.parent.name.split("-cub-")[0] for f in ran.results.glob("runs/*/checkpoint.pt")}
    assert trained == {"cam", "sat"}


def test_what_trains_nothing_says_so(ran: Ran) -> None:
    record = by_method(ran.results)["center-box"]
    assert set(record["figures"]) == {"gt_known_loc", "max_box_acc", "max_box_acc_v2"}
    assert record["threshold_source"] == "held-out"
    cost = record["cost"]
    assert (cost["parameters"], cost["macs"], cost["train_seconds"]) == (0, 0, 0)
    assert (record["supervision"], record["weights"], record["history"]) == ("none", None, [])
    assert record["recipe"]["optim"] is None


def test_a_control_says_so(ran: Ran) -> None:
    made = by_method(ran.results)
    assert made["sat"]["supervision"] == "shuffled labels"
    assert made["cam"]["supervision"] == "labels"


def test_a_control_trains_on_labels_dealt_anew_and_is_scored_on_the_true_ones(
    tiny_cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = METHODS.get("cam")
    train, localize = cls.training_step, cls.localize
    seen: dict[str, int] = {}
    asked: list[int] = []

    def noting_train(self: Any, batch: Batch, progress: float) -> Any:
        seen.update(zip(batch.image_id, batch.label.tolist(), strict=True))
        return train(self, batch, progress)

    def noting_localize(self: Any, image: Any, label: Any) -> Any:
        asked.extend(label.tolist())
        return localize(self, image, label)

    monkeypatch.setattr(cls, "training_step", noting_train)
    monkeypatch.setattr(cls, "localize", noting_localize)
    words = ["--method", "cam", *CNN, "--set", "train_labels=shuffled", *SMALL, "--epochs", 1]
    succeed("run", *words, "--dataset", "cub", "--data-root", tiny_cub, "--results", tmp_path)
    data = DATASETS.get("cub")(tiny_cub, 5)
    true = {s.image_id: s.label for s in data.samples("train")}
    assert seen.keys() == true.keys()
    assert seen != true
    assert sorted(seen.values()) == sorted(true.values())
    scored = [s.label for split in ("val", "test") for s in data.samples(split)]
    kept = len(chosen(s.image_id for s in data.samples("test")))  # localized again, as examples
    assert asked[-len(scored) - kept : -kept] == scored


def test_the_terminal_shows_the_runs_of_the_command_alone(ran: Ran, tiny_cub: Path) -> None:
    table, board = ran.out.split("\n\n")[-2:]
    assert board == f"leaderboard: {ran.results / 'leaderboard.md'}\n"
    rows = [line.split("  ")[0:1] + line.split() for line in table.splitlines()[2:]]
    assert sorted(row[0] for row in rows) == ["-", "1", "2"]
    assert any("SAT, shuffled labels" in line for line in table.splitlines())
    words = ["--method", "center-box", *SMALL, "--dataset", "cub", "--data-root", tiny_cub]
    again = succeed("run", *words, "--results", ran.results)
    assert "Center baseline" in again.out
    assert "CAM" not in again.out
    assert "| CAM " in (ran.results / "leaderboard.md").read_text("utf-8")


def test_each_command_of_a_suite_makes_its_record_again(
    ran: Ran, tiny_cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLBENCH_DATA", str(tiny_cub))
    for name, record in by_method(ran.results).items():
        words = shlex.split(record["command"])[2:]
        assert "--suite" not in words
        succeed(*words, "--results", tmp_path / name, entry=benchmark_main)
        (remade,) = records(tmp_path / name)
        for key in ("figures", "curves", "recipe", "recipe_key", "threshold", "command"):
            assert remade[key] == record[key]


def test_nothing_asked_for_is_the_default_suite(
    tiny_cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrained: None
) -> None:
    box = {**RUNS[0], "method": "center-box"}
    (tmp_path / "suites").mkdir()
    write_suite(tmp_path / "suites", [box], suite.DEFAULT)
    monkeypatch.setattr(suite, "FOLDER", tmp_path / "suites")
    monkeypatch.setenv("WSOLBENCH_DATA", str(tiny_cub))
    done = succeed(entry=benchmark_main)
    assert "Center baseline" in done.out
    (record,) = records(Path("results"))
    succeed(*shlex.split(record["command"])[2:], entry=benchmark_main)
    assert len(records(Path("results"))) == 1
    assert "suite     default      Three rows" in succeed("list").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "defalt"], "unknown suite 'defalt'; did you mean 'default'?"),
        (["--suite", "no.yaml"], "suite 'no.yaml' cannot be read"),
        (["--suite", "default", "--method", "sat"], "--method does not go with --suite"),
        (["--suite", "default", "--batch-size", "3"], "--batch-size does not go with --suite"),
        (["--dataset", "cub"], "the following arguments are required: --method (see wsolbench"),
        (["--batch-size", "3"], "are required: --method, --dataset (see wsolbench run --help"),
        (["--method", "sat,cam", "--dataset", "cub", "--weights", "f"], "name one --method"),
        (["--method", "sat", "--dataset", "cub", "--weights", "f"], "no weights file 'f'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_leave_no_trace(words: list[str], said: str) -> None:
    one_line(call("run", *words), 2, said)
    assert files_below(Path.cwd()) == set()


# --------------------------------------------------------------------------------------- weights


@pytest.fixture(scope="module")
def trained(tiny_cub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a training of SAT with two seeds."""
    results = tmp_path_factory.mktemp("trained") / "results"
    words = ["--method", "sat", *VIT, *SMALL, "--epochs", 1, "--seed", "0,1"]
    succeed("run", *words, "--dataset", "cub", "--data-root", tiny_cub, "--results", results)
    return results


def scoring(tiny_cub: Path, file: Path, results: Path) -> list[object]:
    words = ["run", "--method", "sat", *VIT, *SMALL, "--dataset", "cub", "--data-root", tiny_cub]
    return [*words, "--weights", file, "--results", results]


def test_what_was_done_before_a_failure_is_in_the_leaderboard(
    tiny_cub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(trainer: Trainer) -> None:
        raise WsolbenchError("the loss is NaN")

    monkeypatch.setattr(Trainer, "run", fail)
    done = call(
        *("--method", "center-box,cam", "--dataset", "cub", "--data-root", tiny_cub),
        *(*CNN, *SMALL, "--set", "holdout=1", "--results", tmp_path),
        entry=benchmark_main,
    )
    assert (done.code, done.err) == (1, "error: the loss is NaN\n")
    assert "Center baseline" in (tmp_path / "leaderboard.md").read_text("utf-8")


def test_a_checkpoint_is_scored_as_the_run_that_made_it(
    tiny_cub: Path, trained: Path, tmp_path: Path, untrained: None
) -> None:
    files = sorted(trained.glob("runs/*/checkpoint.pt"))
    for file in files:
        succeed(*scoring(tiny_cub, file, tmp_path / "results"), "--epochs", 9)
    found, made = records(tmp_path / "results"), records(trained)
    assert len(files) == len(found) == 2
    assert {r["threshold"] for r in found} == {r["threshold"] for r in made}
    curves = [r["curves"] for r in made]
    for record in found:
        assert record["curves"] in curves
        assert record["recipe"]["epochs"] == 0
        digest = record["weights"]["sha256"]
        assert digest.startswith(record["recipe"]["weights"])
        assert record["pretraining"] == f"file checkpoint.pt, SHA-256 {digest[:10]}"
    assert found[0]["recipe_key"] != found[1]["recipe_key"]
    page = (
        (tmp_path / "results" / "leaderboard.md").read_text("utf-8").split("## What they cost")[0]
    )
    assert page.count("| SAT, recipe ") == 2
    assert str(tmp_path) not in page + "".join(r["command"] for r in found)


def test_a_checkpoint_of_other_options_is_one_line(
    tiny_cub: Path, trained: Path, tmp_path: Path
) -> None:
    file = next(trained.glob("runs/*/checkpoint.pt"))
    words = scoring(tiny_cub, file, tmp_path / "results")
    said = "they are of another image size, which --set image_size=N resize=M can take"
    one_line(call(*words, "--set", "image_size=48"), 2, said)
    said = "holds no weights of method 'cam'"
    one_line(call(*words, "--method", "cam", *CNN), 2, said)
    assert not (tmp_path / "results").exists()


def test_an_official_checkpoint_is_scored(
    tiny_cub: Path, trained: Path, tmp_path: Path, untrained: None
) -> None:
    ours = torch.load(next(trained.glob("runs/*/checkpoint.pt")), weights_only=True)["model"]
    theirs = {f"module.{name.removeprefix('vit.')}": value for name, value in ours.items()}
    theirs["module.weight"] = torch.zeros(1, 1, 3, 3)
    torch.save({"model": theirs, "best_thr": 0.4, "epoch": 30}, "best_loc.pth.tar")
    succeed(*scoring(tiny_cub, Path("best_loc.pth.tar"), tmp_path / "results"))
    (record,) = records(tmp_path / "results")
    assert record["weights"]["name"] == "best_loc.pth.tar"
    assert "--weights best_loc.pth.tar" in record["command"]
    assert record["curves"] in [r["curves"] for r in records(trained)]


# --------------------------------------------------------------------------- a dataset's own file

DATASET = """
from wsolbench.dataset import Dataset
from wsolbench.registry import register_dataset

@register_dataset("tiny-birds")
class Tiny(Dataset):
    title, layout = "Tiny", "nothing"
    class_names = ("one", "two")

    def official(self, split):
        return []

@register_dataset("tiny-birds-dark")
class Dark(Tiny):
    pass
"""
PART = """
default:
  epochs: 6
  image_size: 128
  backbones: {deit_small_patch16_224.fb_in1k: test_vit, resnet50.tv_in1k: test_resnet}
"""


def test_show_says_what_a_dataset_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny_birds.py"
    file.write_text(DATASET)
    file.with_suffix(".yaml").write_text(PART)
    monkeypatch.setattr(DATASETS, "_plugins", {name: DATASETS.get(name) for name in ["cub"]})
    imported(file, monkeypatch)
    for name in ("tiny-birds", "tiny-birds-dark"):  # datasets of one file share what they ask
        sat = yaml.safe_load(succeed("show", "--method", "sat", "--dataset", name).out)
        assert (sat["backbone"], sat["epochs"], sat["image_size"]) == ("test_vit", 6, 128)
    cub = yaml.safe_load(succeed("show", "--method", "sat", "--dataset", "cub").out)
    assert (cub["backbone"], cub["epochs"]) == ("deit_small_patch16_224.fb_in1k", 15)


def test_the_methods_without_training_are_the_ones_thought_of() -> None:
    without = [name for name in METHODS.names() if not METHODS.get(name).info.trainable]
    assert "center-box" in without
    assert not {"cam", "sat", "ts-cam"} & set(without)
