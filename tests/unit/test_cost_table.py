"""The table of costs: one row a training and machine, medians, and what was not measured."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from records import RECORD, make_result

from wsolbench.cost_table import TEXTS, cost_rows, costs
from wsolbench.results import Result
from wsolbench.tables import csv

TITLES = {"alpha": "Alpha"}
INFERENCE = {
    "images_per_second": 80.0,
    "peak_memory_bytes": 2**30,
    "batch_size": 32,
    "device_type": "cpu",
    "device": "Some CPU",
    "threads": 2,
}


def made(seed: int, rate: float, inference: dict[str, Any] | None = None, **more: Any) -> Result:
    found = None if inference is None else INFERENCE | inference
    cost = {"train_images_per_second": rate, "inference": found}
    return make_result({"seed": seed, **more.pop("recipe", {})}, cost=cost, **more)


def rows(*results: Result) -> list[dict[str, str]]:
    columns, cells = cost_rows(results, TITLES)
    return [dict(zip(columns, row, strict=True)) for row in cells]


def test_a_row_is_a_training_on_a_machine() -> None:
    other = {"protocol": {"name": "other", "version": 1, "title": "Other"}}
    results = [
        made(0, 20.0, {}),
        made(0, 20.0, {}, **other),  # the same training under another protocol
        made(1, 26.0, {"images_per_second": 90.0, "peak_memory_bytes": 2**31}),
    ]
    (row,) = rows(*results)
    assert row == {
        "dataset": "Birds",
        "regime": "default",
        "method": "Alpha",
        "backbone": "vit_tiny_patch16_224.augreg_in21k",
        "length": "15 epochs",
        "precision": "fp32",
        "machine": "Some CPU, 2 threads",
        "pixels": "224",
        "parameters, M": "5.50",
        "MACs, G": "1.100",
        "batch": "32",
        "training, images/s": "20.0",
        "training, GiB": "2.00",
        "inference, images/s": "80.0",
        "inference, GiB": "2.00",
    }
    assert set(TEXTS) < set(row)


@pytest.mark.parametrize(
    ("change", "machine", "precision"),
    [
        ({"environment": {"threads": 1}}, "Some CPU, 1 thread", "fp32"),
        ({"environment": {"compiled": True}}, "Some CPU, 2 threads, compiled", "fp32"),
        ({"environment": {"device_type": "cuda", "device": "GPU"}}, "GPU", "fp32"),
        ({"recipe": {"precision": "bf16"}}, "Some CPU, 2 threads", "bf16"),
    ],
)
def test_machines_and_precisions_are_not_mixed(
    change: dict[str, Any], machine: str, precision: str
) -> None:
    found = rows(made(0, 20.0), made(1, 99.0, **change))
    assert len(found) == 2
    speeds = {(r["machine"], r["precision"]): r["training, images/s"] for r in found}
    assert speeds == {("Some CPU, 2 threads", "fp32"): "20.0", (machine, precision): "99.0"}


def test_what_was_not_measured_here_is_no_number() -> None:
    before = make_result()  # of before inference was measured
    assert RECORD["cost"].get("inference") is None
    elsewhere = made(1, 20.0, {"threads": 64})
    (row,) = rows(before, elsewhere)
    assert (row["inference, images/s"], row["inference, GiB"]) == ("-", "-")
    untrained = made(0, 0.0, {}, recipe={"epochs": 0, "optim": None})
    (row,) = rows(untrained)
    assert [row[c] for c in ("batch", "training, images/s", "training, GiB")] == ["-"] * 3
    assert row["inference, images/s"] == "80.0"
    assert rows() == []


def test_the_numbers_are_in_the_csv() -> None:
    results = [made(0, 20.0, {}), made(1, 30.0)]
    table = pd.read_csv(io.StringIO(csv(results, TITLES)))
    (line,) = table.to_dict("records")
    assert line["machine"] == "Some CPU, 2 threads"
    for name, value in vars(costs(results)).items():
        assert line[name] == value
    assert line["train_images_per_second"] == 25.0


def test_who_saw_boxes_and_who_is_a_control_is_said_here_too() -> None:
    named = rows(
        made(0, 20.0, supervision="boxes"), made(0, 20.0, recipe={"train_labels": "shuffled"})
    )
    assert sorted(row["method"] for row in named) == [
        "Alpha (trained on boxes)",
        "Alpha, shuffled labels",
    ]


def test_a_row_of_several_machines_tells_the_costs_of_the_one_it_names() -> None:
    two = [made(0, 20.0), made(1, 90.0, environment={"threads": 64})]
    (line,) = pd.read_csv(io.StringIO(csv(two, TITLES))).to_dict("records")
    assert line["machine"] == "Some CPU, 2 threads"
    assert line["train_images_per_second"] == 20.0
