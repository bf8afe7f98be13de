"""Several processes on one model: the losses of one, the same weights in all, every image once."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SMALL, VIT, records, succeed
from joined import batch_losses, command, interrupted_command, spoken_command

from wsolbench.checks.joined import run_joined
from wsolbench.results import load_results, read_table


def words(method: str, data: Path, results: Path, *more: str) -> list[str]:
    """A training of nine images in batches of eight: the second has none for a second process."""
    options = ["--method", method, "--dataset", "cub", "--data-root", str(data), *VIT, *SMALL]
    return ["run", *options, "--epochs", "2", "--results", str(results), *more]


def checkpoint(results: Path) -> dict[str, Any]:
    (file,) = results.glob("runs/*/checkpoint.pt")
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("images", [7, 1])
def test_losses_over_a_batch_are_those_of_one_process(images: int) -> None:
    assert run_joined(batch_losses, 2, images) == [0, 0]


@pytest.mark.parametrize("method", ["sat", "ts-cam"])
def test_two_processes_do_what_one_does(tiny_cub: Path, tmp_path: Path, method: str) -> None:
    still = ["--set", "backbone_args.drop_path_rate=0"]
    one, two = tmp_path / "one", tmp_path / "two"
    succeed(*words(method, tiny_cub, one, *still))
    assert run_joined(command, 2, words(method, tiny_cub, two, *still)) == [0, 0]
    alone, joined = checkpoint(one), checkpoint(two)
    for mine, theirs in zip(
        joined["progress"]["history"], alone["progress"]["history"], strict=True
    ):
        assert mine == pytest.approx(theirs, abs=1e-6)
    assert joined["progress"]["images"] == alone["progress"]["images"] == 18
    for name, tensor in alone["model"].items():
        assert torch.allclose(joined["model"][name], tensor, atol=1e-5), name
    (log,) = two.glob("runs/*/log.jsonl")
    assert len(log.read_text().splitlines()) == 2  # one process writes
    (of_two,), (of_one,) = (load_results(folder).results for folder in (two, one))
    ids = [read_table(result, folder).image_id for result, folder in ((of_two, two), (of_one, one))]
    assert ids[0] == ids[1]
    assert of_two.environment.processes == 2
    assert of_two.command.startswith("torchrun --nproc-per-node 2 run_benchmark.py --method")
    assert of_two.figures == pytest.approx(of_one.figures, abs=100 / 12 + 1e-9)  # one image


def test_micro_batches_and_the_best_epoch_in_two_processes(tiny_cub: Path, tmp_path: Path) -> None:
    still = ("--set", "backbone_args.drop_path_rate=0", "checkpoint=best")
    one, two = tmp_path / "one", tmp_path / "two"
    succeed(*words("ts-cam", tiny_cub, one, *still))
    # parts of four images, and of one or none, in pieces of three and one
    pieces = words("ts-cam", tiny_cub, two, *still, "micro_batch=3")
    assert run_joined(command, 2, pieces) == [0, 0]
    alone, joined = checkpoint(one)["progress"], checkpoint(two)["progress"]
    for mine, theirs in zip(joined["history"], alone["history"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    assert joined["best"]["epoch"] == alone["best"]["epoch"]
    for name, tensor in alone["best"]["state"].items():
        assert torch.allclose(joined["best"]["state"][name], tensor, atol=1e-5), name
    (record,) = records(two)
    assert [entry["held_out"] for entry in record["history"]] == [
        round(entry["held_out"], 4) for entry in joined["history"]
    ]


def test_a_signal_to_one_of_two_stops_both_and_costs_nothing(
    tiny_cub: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_joined(command, 2, words("sat", tiny_cub, whole)) == [0, 0]
    stopped = run_joined(interrupted_command, 2, "sat", 2, words("sat", tiny_cub, cut))
    assert stopped == [128 + signal.SIGTERM] * 2
    assert checkpoint(cut)["progress"]["part"]["step"] == 1
    assert records(cut) == []
    assert run_joined(command, 2, words("sat", tiny_cub, cut)) == [0, 0]
    before, after = checkpoint(whole), checkpoint(cut)
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor), name
    assert after["progress"]["history"] == before["progress"]["history"]
    assert json.dumps(records(cut)[0]["figures"]) == json.dumps(records(whole)[0]["figures"])


def test_a_failure_in_one_of_two_is_a_line_in_each(tiny_cub: Path, tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    shutil.copytree(tiny_cub, data)
    image = min(data.glob("CUB_200_2011/images/*/*.jpg"))
    image.write_bytes(image.read_bytes()[:-200])
    codes = run_joined(spoken_command, 2, said, words("sat", data, tmp_path / "results"))
    assert set(codes) == {1, 2}
    errors = [line for line in said.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert f"error: image {image} cannot be decoded" in "".join(errors)
    assert "error: another process of this run ended; its own line says why" in errors
    assert "Traceback" not in said.read_text()
