"""The command line from end to end on a drawn dataset: what it makes, and what it refuses."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from commands import CNN, SMALL, VIT, Done, call, files_below, one_line, records, succeed
from huggingface_hub.errors import LocalEntryNotFoundError
from killed import run_killed, same_state
from safetensors.torch import save_file

from wsolbench.cli import benchmark_main
from wsolbench.compiled import compile_method
from wsolbench.engine.trainer import Trainer
from wsolbench.registry import METHODS
from wsolbench.results import load_results
from wsolbench.run import Run

ROOT = Path(__file__).resolve().parents[2]
#: times the kernel kills a training in one test
KILLS = int(os.environ.get("WSOLBENCH_KILLS", "1"))


def record(results: Path, method: str, protocol: str) -> dict[str, Any]:
    found = [
        r
        for r in records(results)
        if (r["recipe"]["method"], r["protocol"]["name"]) == (method, protocol)
    ]
    assert len(found) == 1
    return found[0]


def state(results: Path) -> dict[str, Any]:
    """Everything in the one checkpoint of a results folder but what the machine did."""
    (file,) = (results / "runs").glob("*/checkpoint.pt")
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    for measured in ("seconds", "peak_memory", "origin"):
        del loaded["progress"][measured]
    return loaded


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder without data."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("WSOLBENCH_DATA", raising=False)


@dataclass(frozen=True)
class Finished:
    """A results folder with one training a method and regime, and its saved maps."""

    results: Path
    maps: Path
    data: Path

    def arguments(self, method: str, recipe: str, *more: object) -> list[object]:
        backbone = CNN if method == "cam" else VIT
        words: list[object] = ["--method", method, "--recipe", recipe, *backbone, *SMALL]
        return [*words, "--epochs", 2, *self.places(), *more]

    def places(self) -> list[object]:
        return ["--dataset", "cub", "--data-root", self.data, "--results", self.results]


@pytest.fixture(scope="module")
def finished(tiny_cub: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    finished = Finished(folder / "results", folder / "maps", tiny_cub)
    for recipe in ("default", "released"):
        for method in ("sat", "ts-cam", "cam"):
            succeed("run", *finished.arguments(method, recipe, "--save-maps", finished.maps))
    return finished


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an epoch is trained."""

    def refuse(self: Trainer, epoch: int) -> None:
        raise AssertionError("an epoch was trained")

    monkeypatch.setattr(Trainer, "_epoch", refuse)


# --------------------------------------------------------------------------------- what it makes


def test_each_method_and_regime_has_its_own_protocol(finished: Finished) -> None:
    made = {
        (r["recipe"]["method"], r["recipe"]["name"], r["protocol"]["name"], r["threshold_source"])
        for r in records(finished.results)
    }
    assert made == {
        *((method, "default", "standard", "held-out") for method in ("sat", "ts-cam", "cam")),
        ("sat", "released", "sat", "oracle"),
        ("ts-cam", "released", "ts-cam", "fixed"),
        ("cam", "released", "wsoleval", "none"),
    }
    for made_record in records(finished.results):
        assert made_record["figures"]
        assert made_record["weights"] is None
        held_out = 15 if made_record["recipe"]["name"] == "default" else 0
        assert made_record["dataset"]["val"] == held_out
        assert made_record["dataset"]["train"] == 24 - held_out
        cost = made_record["cost"]
        inference = cost.pop("inference")
        assert min(cost.values()) > 0
        assert min(inference[name] for name in ("images_per_second", "peak_memory_bytes")) > 0
        assert inference["batch_size"] == made_record["dataset"]["test"] < 32


def test_oracle_figures_are_called_so(finished: Finished) -> None:
    assert record(finished.results, "sat", "sat")["oracle"] == [
        "gt_known_loc",
        "top1_loc",
        "top5_loc",
    ]
    assert record(finished.results, "sat", "standard")["oracle"] == [
        "max_box_acc",
        "max_box_acc_v2",
    ]
    assert record(finished.results, "ts-cam", "ts-cam")["oracle"] == []


def test_the_leaderboard_shows_every_run_and_no_path(finished: Finished) -> None:
    page = (finished.results / "leaderboard.md").read_text("utf-8")
    for title in ("SAT", "TS-CAM", "CAM", "Standard (threshold from held-out images)"):
        assert title in page
    everything = page + "".join(json.dumps(r) for r in records(finished.results))
    for path in (finished.results, finished.data, finished.maps):
        assert str(path) not in everything


def test_a_finished_training_is_scored_again_not_trained(
    finished: Finished, untrained: None
) -> None:
    before = record(finished.results, "sat", "standard")
    (file,) = finished.results.glob("measured/sat-cub-default-*.json")
    file.unlink()
    succeed("run", *finished.arguments("sat", "default"))
    after = record(finished.results, "sat", "standard")
    changing = {"created", "cost", "environment"}
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert after["cost"]["train_seconds"] == before["cost"]["train_seconds"]


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where anything is scored."""

    def refuse(self: Run, protocol: Any) -> None:
        raise AssertionError("something was scored")

    monkeypatch.setattr(Run, "score", refuse)


def test_runs_whose_records_are_whole_are_passed_over(
    finished: Finished, untrained: None, unscored: None, caplog: pytest.LogCaptureFixture
) -> None:
    before = {f: (finished.results / f).read_bytes() for f in files_below(finished.results)}
    words = finished.arguments("cam", "default", "--method", "center-box,cam")
    with pytest.raises(AssertionError, match="something was scored"):
        call("run", *words)  # a grid with one run that is not there
    done = succeed("run", *finished.arguments("sat", "default", "--resume"))
    assert "records are there and whole; --no-resume makes them anew" in caplog.text
    assert "SAT" in done.out
    after = {f: (finished.results / f).read_bytes() for f in files_below(finished.results)}
    assert after == before


@pytest.mark.parametrize("fault", ["record", "table", "version", "commit", "compiled", "training"])
def test_runs_whose_records_are_not_whole_are_not(
    finished: Finished,
    untrained: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    (file,) = results.glob("measured/sat-cub-default-*.json")
    good = file.read_bytes()
    content = json.loads(good)
    table = file.with_suffix(f".{content['table']['sha256'][:10]}.npz")
    if fault == "table":
        table.write_bytes(table.read_bytes()[:-1])
    elif fault == "training":
        (checkpoint,) = results.glob("runs/sat-cub-default-*/checkpoint.pt")
        checkpoint.touch()
    elif fault == "version":
        content["protocol"]["version"] += 1
    elif fault == "commit":
        content["scoring_commit"] = "0" * 40
    elif fault == "compiled":
        content["cost"]["inference"]["compiled"] = True
    file.write_bytes(good[:-9] if fault == "record" else json.dumps(content).encode())
    there = Finished(results, finished.maps, finished.data)
    succeed("run", *there.arguments("sat", "default"))
    assert "records are there and whole" not in caplog.text
    made = record(results, "sat", "standard")
    assert made["figures"] == content["figures"]
    assert made["created"] != content["created"]


def test_all_is_made_anew_where_that_is_asked_for(finished: Finished, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    there = Finished(results, finished.maps, finished.data)
    (checkpoint,) = results.glob("runs/ts-cam-cub-default-*/checkpoint.pt")
    checkpoint.write_bytes(b"damaged")
    succeed("run", *there.arguments("ts-cam", "default", "--no-resume", "--keep-checkpoints", 1))
    assert [f.name for f in checkpoint.parent.glob("*.pt")] == ["checkpoint.pt"]
    made, before = (record(r, "ts-cam", "standard") for r in (results, finished.results))
    assert made["figures"] == before["figures"]
    assert made["history"] == before["history"]
    assert made["cost"]["train_seconds"] != before["cost"]["train_seconds"]


def test_other_protocols_score_the_same_training(
    finished: Finished, untrained: None, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    there = Finished(results, finished.maps, finished.data)
    done = succeed("run", *there.arguments("sat", "default", "--protocol", "wsoleval,ts-cam"))
    assert len(records(results)) == len(records(finished.results)) + 2
    standard, public = (record(results, "sat", p) for p in ("standard", "wsoleval"))
    for figure in ("max_box_acc", "max_box_acc_v2", "top1_cls", "top5_cls"):
        assert public["figures"][figure] == standard["figures"][figure]
    assert "sat seed 0 wsoleval: max_box_acc" in done.out
    assert "sat seed 0 ts-cam: gt_known_loc" in done.out


@pytest.mark.parametrize(
    ("method", "protocol"),
    [("sat", "standard"), ("cam", "standard"), ("sat", "sat"), ("ts-cam", "ts-cam")],
)
def test_saved_maps_give_the_very_figures_of_the_run(
    finished: Finished, method: str, protocol: str, tmp_path: Path
) -> None:
    live = record(finished.results, method, protocol)
    regime = live["recipe"]["name"]
    (maps,) = finished.maps.glob(f"{method}-cub-{regime}-*/{protocol}")
    held_out = ["--val-maps", maps / "val"] if protocol == "standard" else []
    data = ["--dataset", "cub", "--data-root", finished.data]
    file = tmp_path / "scores.json"
    scores = ["score", "--maps", maps / "test", *held_out, *data, "--protocol", protocol]
    done = succeed(*scores, "--json", file)
    saved = json.loads(file.read_text("utf-8"))
    assert saved["figures"] == live["figures"]
    assert saved["threshold"] == pytest.approx(live["threshold"], abs=1e-6)
    assert saved["dead_maps"] == live["dead_maps"]
    assert saved["curves"].keys() == live["curves"].keys()
    for name in live["curves"]:
        assert saved["curves"][name] == pytest.approx(live["curves"][name], abs=1e-4)
    for name, value in live["figures"].items():
        assert f"{name}{' (oracle)' if name in live['oracle'] else ''}: {value:.2f}" in done.out


def test_a_recorded_command_makes_the_record_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a shell would split or expand, and a seed of its own
    extra = ["--set", "schedule.name=milestones", "schedule.at=[1, 2]", "--seed", 3]
    first, again = tmp_path / "first", tmp_path / "again"
    there = Finished(first, tmp_path / "maps", finished.data)
    succeed("run", *there.arguments("ts-cam", "default", *extra))
    (made,) = records(first)
    words = shlex.split(made["command"])
    assert words[:2] == ["python", "run_benchmark.py"]
    monkeypatch.setenv("WSOLBENCH_DATA", str(finished.data))
    succeed(*words[2:], "--results", again, entry=benchmark_main)
    (remade,) = records(again)
    for key in ("figures", "curves", "recipe", "recipe_key", "threshold", "command", "dataset"):
        assert remade[key] == made[key]
    assert same_state(state(again), state(first))


def test_a_compiled_run_says_so_and_is_the_same_experiment(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # machine code takes a minute to make; here the compiler only follows what is computed
    followed = partial(compile_method, backend="eager")
    monkeypatch.setattr("wsolbench.run.compile_method", followed)
    there = Finished(tmp_path / "results", tmp_path / "maps", finished.data)
    succeed("run", *there.arguments("cam", "default", "--compile"))
    (made,) = records(there.results)
    plain = record(finished.results, "cam", "standard")
    assert made["environment"]["compiled"] is made["cost"]["inference"]["compiled"] is True
    assert plain["environment"]["compiled"] is plain["cost"]["inference"]["compiled"] is False
    assert made["command"] == plain["command"].replace("--device", "--compile --device")
    assert made["recipe_key"] == plain["recipe_key"]
    assert made["figures"] == plain["figures"]


def test_seeds_are_runs_of_one_row(finished: Finished, tmp_path: Path) -> None:
    there = Finished(tmp_path / "results", tmp_path / "maps", finished.data)
    arguments = there.arguments("ts-cam", "default", "--seed", "0,1", "--precision", "bf16")
    done = succeed("run", *arguments)
    first, second = records(there.results)
    assert first["recipe_key"] == second["recipe_key"]
    assert [r["recipe"]["seed"] for r in (first, second)] == [0, 1]
    assert {r["recipe"]["precision"] for r in (first, second)} == {"bf16"}
    assert "ts-cam seed 0 standard:" in done.out
    assert "ts-cam seed 1 standard:" in done.out
    table = succeed("table", "--results", there.results, "--format", "csv").out
    (row,) = csv.DictReader(io.StringIO(table))
    assert any("bf16" in value for value in row.values())


# -------------------------------------------------------------------------------- other commands


def test_tables_come_in_three_formats_and_with_curves(finished: Finished, tmp_path: Path) -> None:
    places = ["--results", finished.results]
    page, latex = (succeed("table", *places, "--format", f).out for f in ("md", "latex"))
    assert page.count("SAT") >= 2
    assert r"\begin{tabular}" in latex
    rows = list(csv.DictReader(io.StringIO(succeed("table", *places, "--format", "csv").out)))
    assert len(rows) == 6
    curves = tmp_path / "curves.csv"
    succeed("table", *places, "--curves", curves)
    assert len(curves.read_text("utf-8").splitlines()) > 1000


def record_files(results: Path, ending: str) -> list[Path]:
    return sorted((results / "measured").glob(f"*-{ending}-*.json"))


def test_a_run_is_analysed_and_two_are_compared(finished: Finished, tmp_path: Path) -> None:
    cam, sat, ts_cam = record_files(finished.results, "standard")
    said = succeed("analyse", cam).out
    figures = record(finished.results, "cam", "standard")["figures"]
    for line in (f"GT-known Loc  *{figures['gt_known_loc']:.2f}", "several instances", "mean of 3"):
        assert re.search(line, said), line
    page = succeed("table", "--results", finished.results).out
    assert page.count("GT-known Loc 95%") == 3  # once a group
    both = succeed("analyse", sat, ts_cam).out
    assert re.search(r"GT-known Loc .*\[.*, .*\] +[01]\.\d{4}", both)
    assert both.splitlines()[-1].endswith("this speaks of these runs.")
    one_line(call("analyse", cam, cam), 2, "seeds of one row")
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    copied = results / "measured" / sat.name
    digest = json.loads(copied.read_text("utf-8"))["table"]["sha256"]
    table = copied.with_suffix(f".{digest[:10]}.npz")
    table.write_bytes(table.read_bytes()[:-100])
    one_line(call("analyse", copied), 2, "damaged, or the table of another run")
    shown = call("table", "--results", results)
    assert shown.code == 0
    assert f"warning: {table}: damaged" in shown.err
    table.unlink()
    one_line(call("analyse", copied), 2, "cannot be read")
    one_line(call("analyse", tmp_path / "none.json"), 2, "cannot be read")


def test_list_names_what_there_is_one_line_each() -> None:
    lines = succeed("list").out.splitlines()
    found = {tuple(line.split()[:2]) for line in lines}
    assert found >= {("method", "sat"), ("method", "ts-cam"), ("method", "cam"), ("dataset", "cub")}
    protocols = {"sat", "ts-cam", "standard", "wsoleval"}
    protocols |= {"standard-max", "sat-sweep", "standard-pas", "standard-ivr"}
    assert {name for kind, name in found if kind == "protocol"} == protocols


def test_show_resolves_as_run_does(finished: Finished) -> None:
    words = finished.arguments("sat", "default")[:-6]
    shown = yaml.safe_load(succeed("show", *words, "--dataset", "cub").out)
    made = record(finished.results, "sat", "standard")["recipe"]
    assert shown == made


def test_run_benchmark_is_run_and_passes_commands_through() -> None:
    for command in (["list"], ["show", "--method", "sat", "--dataset", "cub"], ["--version"]):
        if command == ["--version"]:
            with pytest.raises(SystemExit, match="0"):
                benchmark_main(command)
            continue
        assert call(*command, entry=benchmark_main) == call(*command)
    options = ["--method", "sta", "--dataset", "cub"]
    assert call(*options, entry=benchmark_main) == call("run", *options)
    misspelt = call("lst", entry=benchmark_main)
    assert (misspelt.code, misspelt.err) == (
        2,
        "error: unknown command 'lst'; did you mean 'list'?\n",
    )


def test_no_command_prints_the_help() -> None:
    done = succeed()
    commands = (
        "run",
        "predict",
        "score",
        "table",
        "analyse",
        "list",
        "show",
        "check",
        "new-method",
    )
    for command in commands:
        assert f"    {command} " in done.out


# --------------------------------------------------------------------------------- interruptions


def test_an_interrupted_run_goes_on_to_the_same_record(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Finished(tmp_path / "results", tmp_path / "maps", finished.data)
    command = ["run", *there.arguments("cam", "default")]
    method = METHODS.get("cam")
    real = method.training_step
    steps = iter(range(100))

    def interrupt(self: Any, batch: Any, progress: float) -> Any:
        if next(steps) == 2:  # two batches an epoch: the first of the second
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(method, "training_step", interrupt)
        stopped = call(*command)
    assert stopped.code == 128 + signal.SIGTERM
    assert stopped.err.splitlines()[-1] == (
        "interrupted: a checkpoint was written after epoch 1 of 2 and 1 of 2 steps; "
        "the same command goes on"
    )
    assert state(there.results)["progress"]["part"]["step"] == 1
    succeed(*command)
    whole = record(finished.results, "cam", "standard")
    resumed = record(there.results, "cam", "standard")
    assert resumed["figures"] == whole["figures"]
    assert resumed["curves"] == whole["curves"]


def test_a_killed_run_goes_on_to_the_same_weights(tiny_cub: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # enough epochs that every kill finds some left
    words = ["--method", "sat", "--dataset", "cub", "--data-root", tiny_cub, *VIT, *SMALL]
    words += ["--epochs", 10 + 10 * KILLS, "--protocol", "sat", "--recipe", "released"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    for _ in range(KILLS):
        process = subprocess.Popen(
            [str(w) for w in (sys.executable, ROOT / "run_benchmark.py", *words)]
            + ["--results", str(killed)],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        before = checkpoint_time(killed)
        while checkpoint_time(killed) == before:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -9, "it ended before it was killed"
        assert records(killed) == []
    for results in (killed, whole):
        succeed("run", *words, "--results", results)
    assert same_state(state(killed), state(whole))
    assert records(killed)[0]["figures"] == records(whole)[0]["figures"]


def test_killed_wherever_it_writes_it_loses_only_what_came_after_the_checkpoint(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    for trial in range(KILLS):
        there = Finished(tmp_path / str(trial), finished.maps, finished.data)
        words = [str(word) for word in there.arguments("sat", "default")]
        for where, after in (
            ("checkpoint", random.randrange(2)),
            ("scoring", random.randrange(15 + 12)),
            (random.choice([".json", ".npz", "run.json", "safetensors"]), 0),
            ("leaderboard", 0),
        ):
            code = run_killed(where, after, ["run", *words]).code
            assert code == -9, f"it was not killed in {where}"
            if there.results.is_dir():
                assert load_results(there.results).problems == []
            late = where in ("run.json", "safetensors", "leaderboard")
            assert len(records(there.results)) == late
        with monkeypatch.context() as patch:
            patch.setattr(Run, "execute", lambda _: pytest.fail("something was done twice"))
            succeed("run", *words)
        made, whole = (record(f.results, "sat", "standard") for f in (there, finished))
        for part in ("figures", "curves", "history", "threshold"):
            assert made[part] == whole[part]
        assert "SAT" in (there.results / "leaderboard.md").read_text("utf-8")
        assert_same_file_state(there.results, finished.results, "sat-cub-default")


def assert_same_file_state(a: Path, b: Path, run: str) -> None:
    states = []
    for results in (a, b):
        (file,) = results.glob(f"runs/{run}-*/checkpoint.pt")
        states.append(torch.load(file, weights_only=True))
    for part in ("model", "optimizer"):
        assert same_state(states[0][part], states[1][part])


def checkpoint_time(results: Path) -> int:
    return max((f.stat().st_mtime_ns for f in results.glob("runs/*/checkpoint.pt")), default=0)


# -------------------------------------------------------------------------- runs that fail: 1


def test_a_loss_of_nan_is_one_line(finished: Finished, tmp_path: Path) -> None:
    there = Finished(tmp_path / "results", tmp_path / "maps", finished.data)
    done = call("run", *there.arguments("sat", "default", "--set", "optim.lr=1e30"))
    one_line(done, 1, " became NaN or infinite in epoch 1; try a smaller")
    assert files_below(there.results) == set()


class _Full(io.RawIOBase):
    """A file on a disk without room."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["checkpoint.new.pt", "json", "leaderboard.md"])
def test_a_full_disk_is_one_line_and_costs_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    results = tmp_path / "results"
    shutil.copytree(finished.results, results)
    before = {f: (results / f).read_bytes() for f in files_below(results)}
    there = Finished(results, tmp_path / "maps", finished.data)
    real = Path.open

    def refuse(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if f"{what}." not in self.name or self.suffix != ".tmp":
            return real(self, mode, *args, **kwargs)
        real(self, mode, *args, **kwargs).close()
        return _Full()

    # a new training where the checkpoint cannot be written, else one that needs none
    new = ["--seed", 9] if what == "checkpoint.new.pt" else ["--save-maps", tmp_path / "maps"]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        done = call("run", *there.arguments("sat", "default", *new))
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "make room and run again" in done.err
    after = {f: (results / f).read_bytes() for f in files_below(results)}
    after = {f: content for f, content in after.items() if f in before or "seed9" not in f}
    if what == "leaderboard.md":  # its record is there already
        (changed,) = [f for f in after if after[f] != before[f]]
        assert changed.startswith("measured/sat-cub-default")
        before[changed] = after[changed]
    assert after == before


# ------------------------------------------------------------------------------ wrong input: 2


@pytest.fixture
def half(tiny_cub: Path, tmp_path: Path) -> Path:
    """Return a copy of the dataset that may be damaged."""
    return Path(shutil.copytree(tiny_cub, tmp_path / "half"))


@pytest.fixture
def places(tiny_cub: Path, tmp_path: Path) -> Finished:
    return Finished(tmp_path / "results", tmp_path / "maps", tiny_cub)


def refused(places: Finished, said: str, *arguments: object, command: str = "run") -> None:
    one_line(call(command, *arguments), 2, said)
    for folder in (places.results, places.maps, Path.cwd()):
        assert files_below(folder) == set()


def run_with(places: Finished, *more: object, method: str = "sat") -> list[object]:
    return places.arguments(method, "default", "--save-maps", places.maps, *more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "sta"], "unknown method 'sta'; did you mean 'sat'?"),
        (["--method", "sat,ts-kam"], "unknown method 'ts-kam'; did you mean 'ts-cam'?"),
        (["--method", ""], "unknown method ''"),
        (["--dataset", "cup"], "unknown dataset 'cup'; did you mean 'cub'?"),
        (["--protocol", "standart"], "unknown protocol 'standart'; did you mean 'standard'?"),
        (["--protocol", "sat,wsoleva"], "unknown protocol 'wsoleva'; did you mean 'wsoleval'?"),
        (["--recipe", "relaesed"], "unknown recipe 'relaesed'; did you mean 'released'?"),
        (["--backbone", "test_vitt"], "unknown backbone 'test_vitt'; did you mean 'test_vit"),
        (["--backbone", "test_vit.r160"], "did you mean 'test_vit.r160_in1k'?"),
        (["--epocks", "3"], "unknown option '--epocks'; did you mean '--epochs'?"),
        (["--epocks=3"], "unknown option '--epocks'; did you mean '--epochs'?"),
        (["--set", "epohs=3"], "unknown recipe field 'epohs'; did you mean 'epochs'?"),
        (["--set", "optim.lrr=1"], "unknown recipe field 'optim.lrr'; did you mean 'lr'?"),
        (["--set", "options.area_targt=.3"], "'area_targt'; did you mean 'area_target'?"),
        (["--set", "options.area_target=wide"], "sat: option of the method 'area_target': "),
        (["--set", "options.area_target=3"], "'area_target': Input should be less than 1"),
        (["--set", "options.spatial_blocks=7"], "spatial_blocks=7"),
        (["--set", "holdout=many"], "recipe field 'holdout': Input should be a valid int"),
        (["--set", "flip=often"], "recipe field 'flip': Input should be a valid number"),
        (["--set", "method=cam"], "recipe field 'method' is set by --method"),
        (["--set", "epochs"], "--set takes a.b=value, got 'epochs'"),
        (["--set", "backbone_args.depht=3"], "backbone 'test_vit' does not take {"),
        (["--seed", "abc"], "argument --seed: takes numbers, got 'abc'"),
        (["--seed", "-1"], "recipe field 'seed': Input should be greater than or equal to 0"),
        (["--epochs", "0"], "recipe field 'epochs': 0 would leave the method untrained"),
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["--precision", "16"], "recipe field 'precision': Input should be '32', 'tf32' or 'bf16'"),
        (["--precision", "tf32", "--device", "cpu"], "TF32 is arithmetic of NVIDIA GPUs from Amp"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--recipe", "released", "--protocol", "standard"], "recipe 'released' has none; add "),
        (["--set", "micro_batch=4"], "sat has a loss over the batch, which micro-batches change"),
        (
            ["--method", "acol", *CNN, "--set", "micro_batch=4"],
            "acol has BatchNorm, which micro-batches change; add --set batch_loss=micro",
        ),
        (["--method", "has", *CNN, "--set", "micro_batch=4"], "BatchNorm and random draws"),
        (["--set", "micro_batch=9"], "micro_batch exceeds the batch size of 8"),
        (["--set", "batch_loss=micro"], "needs the images of a micro-batch"),
        (["--protocol", "wsoleval", "--set", "checkpoint=best"], "add --protocol standard"),
        (["--set", "holdout=8"], "has 8 training images, a hold-out of 8 a class leaves none"),
        (["--set", "image_size=48"], "a crop of 48 does not fit in images resized to 36"),
        (["--batch-size", "99", "--set", "drop_last=true"], "make no batch of 99 with drop_last"),
        (["--backbone", "test_resnet"], "SAT needs a plain ViT or DeiT with a class token"),
        (["--set", "backbone_args.global_pool=avg"], "SAT reads normed tokens"),
        (["--method", "sat,cam"], "VisionTransformer"),
        (["--data-root", "nowhere"], "must be the folder that contains CUB_200_2011/{images/"),
        (["extra"], "unknown option 'extra'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_of_run(places: Finished, more: list[str], said: str) -> None:
    refused(places, said, *run_with(places, *more))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "unknown command 'rum'; did you mean 'run'?"),
        (["--verson"], "unknown option '--verson'; did you mean '--version'?"),
        (["run", "--metod", "sat"], "unknown option '--metod'; did you mean '--method'?"),
        (["run", "--method", "sat"], "arguments are required: --dataset (see wsolbench run --help"),
        (["run", "--method", "sat", "--dataset", "cub", "--seed"], "--seed: expected one argument"),
        (["show", "--method", "sat", "--dataset", "cup"], "did you mean 'cub'?"),
        (["show", "--method", "sat,cam", "--dataset", "cub"], "unknown method 'sat,cam'"),
        (["show", "--method", "sat", "--dataset", "cub", "--set", "x=1"], "recipe field 'x'"),
        (["table"], "no results folder 'results'; name another with --results"),
        (["table", "--format", "html"], "argument --format: invalid choice: 'html'"),
        (["score", "--maps", "m", "--dataset", "cub"], "data/CUB_200_2011 does not exist"),
        (["score", "--maps", "m", "--dataset", "cub", "--protocol", "sta"], "mean 'sat'?"),
        (["score", "--maps", "m", "--dataset", "cub", "--holdout", "-1"], "from 0 up, got '-1'"),
        (["score", "--maps", "m", "--dataset", "cub", "--protocol", "standard"], "--val-maps DIR"),
        (["score", "--maps", "m", "--dataset", "cub", "--val-maps", "m"], "leave out --val-maps"),
        (["score", "--maps", "m", "--dataset", "cub", "--holdout", "1"], "leave out --holdout"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_of_any_command(places: Finished, arguments: list[str], said: str) -> None:
    refused(places, said, *arguments[1:], command=arguments[0])


def test_cam_on_a_vit(places: Finished) -> None:
    said = "VisionTransformer offers no map of features (B, D, h, w); try a CNN of timm"
    refused(places, said, *run_with(places, *VIT, method="cam"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(places: Finished) -> None:
    said = "no CUDA device is available; use --device cpu"
    refused(places, said, *run_with(places, "--device", "cuda"))


def test_the_data_variable_is_looked_at(
    places: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSOLBENCH_DATA", str(tmp_path / "elsewhere"))
    words = ["--method", "sat", "--dataset", "cub", "--results", places.results]
    refused(places, f"{tmp_path / 'elsewhere'}/CUB_200_2011 does not exist", *words)


@pytest.mark.parametrize("missing", ["bounding_boxes.txt", "images", "002.Green_Finch"])
def test_half_a_dataset(places: Finished, half: Path, missing: str) -> None:
    (path,) = (half / "CUB_200_2011").rglob(missing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(places, missing, *run_with(places, "--data-root", half))


def test_a_missing_image_is_named(places: Finished, half: Path) -> None:
    image = next((half / "CUB_200_2011" / "images").rglob("*.jpg"))
    image.unlink()
    refused(places, image.name, *run_with(places, "--data-root", half))


@pytest.mark.parametrize("official", ["train", "test"])
def test_a_truncated_jpeg_is_named(places: Finished, half: Path, official: str) -> None:
    # train and test alternate, so the first image is of train and the second of test
    folder = half / "CUB_200_2011" / "images" / "001.Red_Finch"
    image = sorted(folder.iterdir())[0 if official == "train" else 1]
    image.write_bytes(image.read_bytes()[:700])
    words = places.arguments("sat", "released", "--data-root", half, "--protocol", "wsoleval")
    one_line(call("run", *words), 2, f"image {image} cannot be decoded")
    made = {Path(file).name for file in files_below(places.results)}
    # the training itself was sound, and is there when the image has been restored
    assert ("checkpoint.pt" in made) == (official == "test")
    assert not [name for name in made if name.endswith(".json")]


@pytest.mark.parametrize("option", ["--results", "--save-maps"])
@pytest.mark.parametrize("below", ["", "folder"])
def test_a_regular_file_where_a_folder_should_be(
    places: Finished, tmp_path: Path, option: str, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    words = places.arguments("sat", "default", option, file / below)
    one_line(call("run", *words), 2, f"'{file}' is a file, not a folder; move it or name another")
    assert file.read_text() == "mine"
    assert files_below(places.results) == set()


# --------------------------------------------------------------------------------------- weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def with_weights(places: Finished, weights: Path) -> list[object]:
    return run_with(places, "--weights-dir", weights, "--set", "pretrained=true")


def test_weights_of_another_backbone(places: Finished, weights: Path) -> None:
    other = timm.create_model("test_resnet").state_dict()
    save_file(other, weights / "test_vit.safetensors")
    said = "test_vit.safetensors holds no weights of 'test_vit': "
    refused(places, said, *with_weights(places, weights))


def test_truncated_weights(places: Finished, weights: Path) -> None:
    file = weights / "test_vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    file.write_bytes(file.read_bytes()[:9999])
    said = f"{file}: not readable as safetensors"
    refused(places, said, *with_weights(places, weights))


def test_a_weights_folder_that_does_not_exist(places: Finished, weights: Path) -> None:
    said = "nowhere does not exist; check --weights-dir"
    refused(places, said, *with_weights(places, weights / "nowhere"))


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no\nnetwork"), OSError("no\nroute")])
def test_neither_weights_nor_a_network(
    places: Finished, weights: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def create_model(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", create_model)
    said = f"cannot fetch the weights of 'test_vit' ({type(error).__name__}: no "
    refused(places, said, *with_weights(places, weights))


def test_weights_of_the_folder_are_used_and_named(
    places: Finished, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), weights / "test_vit.safetensors")
    succeed("run", *places.arguments("sat", "default", *with_weights(places, weights)[-4:]))
    (made,) = records(places.results)
    assert made["weights"]["name"] == "test_vit"
    assert len(made["weights"]["sha256"]) == 64


# ------------------------------------------------------------------------------------ a real shell


def test_a_process_says_one_line_too(places: Finished, weights: Path, tmp_path: Path) -> None:
    """Nothing of the libraries' own output, which tests within one process may hide."""
    other = timm.create_model("test_vit3").state_dict()
    save_file(other, weights / "test_vit.safetensors")
    words = [str(w) for w in with_weights(places, weights)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_benchmark.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    one_line(Done(done.returncode, done.stdout, done.stderr), 2, "holds no weights of 'test_vit'")
    assert not places.results.exists()
