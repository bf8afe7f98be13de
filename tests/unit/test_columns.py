"""Columns that say what a run builds on and what its weights had seen."""

from __future__ import annotations

from typing import Any

import pytest
from records import make_result

from wsolbench import tables
from wsolbench.pretraining import pretraining_kind

TITLES = {"alpha": "Alpha", "beta": "Beta"}


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        (None, "none"),
        ("in1k", "ImageNet-1k"),
        ("tv_in1k", "ImageNet-1k"),
        ("fb_dist_in1k", "ImageNet-1k"),
        ("augreg_in21k", "ImageNet-21k"),
        ("augreg_in21k_ft_in1k", "ImageNet-21k"),
        ("in22k_ft_in22k_in1k", "ImageNet-21k"),
        ("sw_in12k_ft_in1k", "ImageNet-21k"),
        ("dino", "self-supervised"),
        ("lvd142m", "self-supervised"),
        ("mae", "self-supervised"),
        ("mae_in1k", "self-supervised"),
        ("mae_in1k_ft_in1k", "self-supervised, ImageNet-1k"),
        ("fcmae_ft_in22k_in1k", "self-supervised, ImageNet-21k"),
        ("a_training_of_ones_own", "other"),
        ("own_ft_in1k", "other, ImageNet-1k"),
        ("laion2b", "image-text pairs"),
        ("openai_ft_in1k", "image-text pairs, ImageNet-1k"),
        ("laion2b_ft_in12k_in1k", "image-text pairs, ImageNet-21k"),
        ("ns_jft_in1k", "ImageNet-1k, other"),
    ],
)
def test_what_weights_had_seen(tag: str | None, kind: str) -> None:
    assert pretraining_kind(tag) == kind


def row(markdown: str, method: str) -> dict[str, str]:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.splitlines()
        if line.startswith("|")
    ]
    (cells,) = (line for line in lines if line[1] == method)
    return dict(zip(lines[0], cells, strict=True))


def test_top_1_with_another_classifier_has_a_column_of_its_own() -> None:
    base = make_result()
    fields: dict[str, Any] = {**base.recipe.model_dump(), "method": "beta"}
    external = make_result({**fields, "classifier": base.recipe})
    text = tables.markdown([base, external], TITLES)
    own, other = row(text, "Alpha"), row(text, "Beta")
    assert (own["Top-1 Loc"], own["Top-1 Loc, external classifier"]) == ("70.00", "-")
    assert (other["Top-1 Loc"], other["Top-1 Loc, external classifier"]) == ("-", "70.00")
    assert own["GT-known Loc"] == other["GT-known Loc"] == "90.00"
    assert "external" not in tables.markdown([base], TITLES)


def test_a_row_says_what_it_looks_into_and_how_many_maps_are_dead() -> None:
    base = make_result(dead_maps=3)
    fields = base.recipe.model_dump(exclude={"optim", "options"})
    looks: dict[str, Any] = {**fields, "method": "beta", "epochs": 0, "source": base.recipe}
    text = tables.markdown(
        [make_result({**looks, "optim": None, "options": {}}), base],
        TITLES,
    )
    assert row(text, "Beta on Alpha")["dead maps"] == "0"
    assert row(text, "Alpha")["dead maps"] == "3"
    assert row(text, "Alpha")["pre-training"] == "ImageNet-21k (augreg_in21k)"
    assert row(text, "Beta on Alpha")["epochs"] == "15"
    assert "dead maps" not in tables.markdown([make_result()], TITLES)
