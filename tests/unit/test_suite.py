"""Suites: what a file may hold, and that the packaged ones can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsolbench.errors import InputError
from wsolbench.recipe import NO_BACKBONE, Recipe
from wsolbench.registry import METHODS
from wsolbench.suite import DEFAULT, load_suite, suite_names

SUITE = """
title: Two rows
runs:
  - {method: [center-box, sat], dataset: cub, seed: [0, 1], set: [options.area_target=0.3]}
  - {method: cam, dataset: cub, recipe: released, protocol: wsoleval, epochs: 2}
"""


def written(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text, "utf-8")
    return str(file)


@pytest.mark.parametrize("name", suite_names())
def test_every_packaged_suite_resolves(name: str) -> None:
    suite = load_suite(name)
    for request in suite.runs:
        assert request.recipes()
    assert DEFAULT in suite_names()


def test_a_suite_has_every_method_there_is() -> None:
    made = {recipe.method for recipe in _recipes("toybirds")}
    assert made == set(METHODS.names())


def test_a_suite_of_two_networks_needs_no_third() -> None:
    chains = [recipe.chain() for recipe in _recipes("cub-small")]
    assert {recipe.backbone for chain in chains for recipe in chain} == {
        NO_BACKBONE,
        "tf_efficientnet_lite0.in1k",
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    }
    keys = {recipe.key() for (recipe, *_) in chains}
    assert {recipe.key() for (_, *others) in chains for recipe in others} <= keys


def _recipes(name: str) -> list[Recipe]:
    return [recipe for request in load_suite(name).runs for recipe in request.recipes()]


def test_a_run_of_a_suite_is_what_its_options_would_be(tmp_path: Path) -> None:
    suite = load_suite(
        written(
            tmp_path,
            SUITE.replace("center-box", "ts-cam").replace(", set: [options.area_target=0.3]", ""),
        )
    )
    recipes = [recipe for request in suite.runs for recipe in request.recipes()]
    assert suite.title == "Two rows"
    assert [(r.method, r.name, r.seed) for r in recipes] == [
        ("ts-cam", "default", 0),
        ("ts-cam", "default", 1),
        ("sat", "default", 0),
        ("sat", "default", 1),
        ("cam", "released", 0),
    ]
    assert recipes[-1].epochs == 2


def test_options_given_for_all_runs_go_before_theirs(tmp_path: Path) -> None:
    runs = load_suite(written(tmp_path, SUITE)).runs
    changed = [request.but({"epochs": 1, "seed": [7]}) for request in runs]
    assert [request.epochs for request in changed] == [1, 1]
    assert [request.seed for request in changed] == [(7,), (7,)]
    assert changed[0].set == runs[0].set
    assert changed[1].recipe == "released"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("title:", "titel:", "unknown field 'titel'; did you mean 'title'?"),
        ("method: cam", "metod: cam", "unknown field 'runs.1.metod'; did you mean 'method'?"),
        ("epochs: 2", "epochs: many", "field 'runs.1.epochs': Input should be a valid integer"),
        ("dataset: cub, recipe", "recipe", "field 'runs.1.dataset': Field required"),
        ("- {", "- [", "not YAML: "),
        (SUITE, "runs: []\ntitle: x", "field 'runs': "),
        (SUITE, "", "field '': "),
    ],
)
def test_a_wrong_suite_is_one_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in SUITE
    name = written(tmp_path, SUITE.replace(old, new))
    with pytest.raises(InputError) as raised:
        load_suite(name)
    line = str(raised.value)
    assert line.startswith(f"suite '{name}': ")
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("defualt", "unknown suite 'defualt'; did you mean 'default'?"),
        ("absent.yaml", "suite 'absent.yaml' cannot be read: .*No such file"),
    ],
)
def test_a_suite_that_is_not_there_is_one_line(name: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^{says}"):
        load_suite(name)
