"""Recipes: every one resolves, the default regime is one for all, keys stay what they are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolbench.errors import InputError
from wsolbench.layers import (
    DatasetPart,
    default_holdout,
    parse_assignments,
    read_dataset_part,
    read_sections,
    resolve,
)
from wsolbench.recipe import RECIPE_NAMES, Optim, Recipe, RecipeName
from wsolbench.registry import METHODS, resource_text

METHOD_NAMES = ("acol", "adl", "cam", "cutmix", "has", "sat", "spg", "ts-cam")
DATASET_NAMES = ("cub", "ilsvrc")
#: what a method may choose in the default regime
OWN = {"method", "backbone", "backbone_args", "optim", "options"}


def recipe_of(
    method: str, name: RecipeName, dataset: str = "cub", overrides: dict[str, Any] | None = None
) -> Recipe:
    text = resource_text(METHODS.get(method))
    assert text is not None
    return resolve(read_sections(text, method), method, dataset, name, overrides or {})


def small(**fields: Any) -> Recipe:
    base: dict[str, Any] = {
        "method": "m",
        "dataset": "d",
        "name": "default",
        "backbone": "b",
        "holdout": 5,
        "epochs": 2,
        "batch_size": 4,
        "optim": {"name": "adamw", "lr": 1e-4},
        "protocol": ["p"],
    }
    return Recipe.model_validate({**base, **fields})


# -------------------------------------------------------------------- the recipes of the methods


@pytest.mark.parametrize(
    ("method", "name", "dataset"),
    list(itertools.product(METHOD_NAMES, RECIPE_NAMES, DATASET_NAMES)),
)
def test_every_recipe_resolves(method: str, name: RecipeName, dataset: str) -> None:
    recipe = recipe_of(method, name, dataset)
    assert (recipe.method, recipe.name, recipe.dataset) == (method, name, dataset)
    METHODS.get(method).Options.model_validate(recipe.options)
    assert (recipe.holdout > 0) == (name == "default")
    assert recipe.pretrained


def test_the_authors_loop_on_ilsvrc_stops_after_one_of_five_epochs() -> None:
    assert recipe_of("sat", "released", "ilsvrc").epochs == 1
    assert recipe_of("sat", "declared", "ilsvrc").epochs == 5


def test_released_and_declared_differ_where_the_authors_code_does() -> None:
    released, declared = (recipe_of("sat", name) for name in ("released", "declared"))
    assert (released.schedule.name, declared.schedule.name) == ("constant", "cosine")
    assert released.options["decay_tokens"]
    assert not declared.options["decay_tokens"]
    schedules = [recipe_of("ts-cam", n, "ilsvrc").schedule for n in ("released", "declared")]
    assert (schedules[0].name, schedules[0].every) == ("step", (10, 12))
    assert (schedules[1].name, schedules[1].at) == ("milestones", (10, 12))


@pytest.mark.parametrize("dataset", DATASET_NAMES)
def test_the_default_regime_is_the_same_for_every_method(dataset: str) -> None:
    regimes = [recipe_of(m, "default", dataset).model_dump(exclude=OWN) for m in METHOD_NAMES]
    assert all(regime == regimes[0] for regime in regimes)
    assert regimes[0]["holdout"] == 5
    assert regimes[0]["protocol"] == ("standard",)


def test_layers_cover_each_other_field_by_field() -> None:
    sections = {
        "released": {
            "backbone": "b",
            "epochs": 3,
            "batch_size": 8,
            "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.5},
            "protocol": ["p"],
            "options": {"x": 1, "y": 2},
            "datasets": {"d": {"optim": {"lr": 0.2}, "options": {"y": 3}}},
        }
    }
    elsewhere = resolve(sections, "m", "other", "released", {})
    there = resolve(sections, "m", "d", "released", {"options": {"z": 4}, "epochs": 7})
    assert elsewhere.optim == Optim(name="sgd", lr=0.1, momentum=0.5)
    assert elsewhere.options == {"x": 1, "y": 2}
    assert there.optim == Optim(name="sgd", lr=0.2, momentum=0.5)
    assert there.options == {"x": 1, "y": 3, "z": 4}
    assert (there.epochs, there.holdout) == (7, 0)


def test_a_method_says_what_it_needs_on_single_backbones() -> None:
    sections = {
        "default": {
            "backbone": "resnet50.a",
            "optim": {"name": "adamw", "lr": 0.1},
            "options": {"fast": ["fc."], "rate": 10},
            "datasets": {"d": {"options": {"rate": 5}}},
            "backbones": {
                "vgg*": {"options": {"fast": ["neck."]}},
                "small": {"options": {"rate": 1}},
            },
        }
    }

    def options(dataset: str, **overrides: Any) -> dict[str, Any]:
        part = DatasetPart(backbones={"resnet50.a": "small"} if dataset == "d" else {})
        return resolve(sections, "m", dataset, "default", overrides, part=part).options

    assert options("other") == {"fast": ["fc."], "rate": 10}
    assert options("other", backbone="vgg16.b") == {"fast": ["neck."], "rate": 10}
    assert options("d") == {"fast": ["fc."], "rate": 1}  # of the dataset's stand-in
    assert options("d", backbone="vgg16.b") == {"fast": ["neck."], "rate": 5}
    assert options("d", backbone="vgg16.b", options={"fast": []})["fast"] == []


# ------------------------------------------------------------------- what a dataset asks for

PART = """
default:
  epochs: 6
  holdout: 3
  image_size: 128
  optim: {weight_decay: 0.5}
  backbones: {big_vit: small_vit, big_cnn: small_cnn}
"""
SECTIONS: dict[str, Any] = {
    "default": {
        "backbone": "big_vit",
        "image_size": 96,
        "optim": {"name": "adamw", "lr": 0.1},
        "datasets": {"birds*": {"optim": {"lr": 0.2}}, "birds-dark": {"optim": {"lr": 0.3}}},
    },
    "released": {
        "backbone": "big_vit",
        "epochs": 3,
        "batch_size": 8,
        "optim": {"name": "adamw", "lr": 0.1},
        "protocol": ["p"],
    },
}


def on(dataset: str, name: RecipeName = "default", **overrides: Any) -> Recipe:
    part = read_dataset_part(PART, dataset)
    return resolve(SECTIONS, "m", dataset, name, overrides, part=part)


def test_a_dataset_lies_between_the_regime_and_the_method() -> None:
    recipe = on("birds")
    assert (recipe.epochs, recipe.holdout, recipe.batch_size) == (6, 3, 32)
    assert recipe.image_size == 96
    assert recipe.optim == Optim(name="adamw", lr=0.2, weight_decay=0.5)
    assert recipe.backbone == "small_vit"
    assert on("birds", epochs=1).epochs == 1
    assert default_holdout(read_dataset_part(PART, "birds")) == 3
    assert default_holdout(DatasetPart()) == 5


def test_a_stand_in_is_for_the_recipe_not_for_the_user() -> None:
    assert on("birds", backbone="big_cnn").backbone == "big_cnn"
    assert on("birds", backbone="other").backbone == "other"


def test_only_the_default_regime_heeds_a_dataset() -> None:
    without = resolve(SECTIONS, "m", "birds", "released", {})
    assert on("birds", "released") == without
    assert without.backbone == "big_vit"


def test_the_exact_name_of_a_dataset_goes_before_a_pattern() -> None:
    rates = {d: on(d).optim for d in ("birds", "birds-lit", "birds-dark", "more-birds")}
    assert {d: optim.lr for d, optim in rates.items() if optim} == {
        "birds": 0.2,
        "birds-lit": 0.2,
        "birds-dark": 0.3,
        "more-birds": 0.1,
    }


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("epochs:", "epohs:", "x: unknown recipe field 'epohs'; did you mean 'epochs'?"),
        ("backbones:", "backbons:", "x: unknown recipe field 'backbons'; did you mean 'backbone"),
        ("default:", "released:", "x: a dataset asks something of 'default' only, not of 'rel"),
        ("epochs: 6", "dataset: y", "x: unknown recipe field 'dataset'"),
        ("{big_vit: small_vit, big_cnn: small_cnn}", "[a]", "x: 'backbones' names a stand-in"),
        ("small_vit", "3", "x: 'backbones' names a stand-in"),
        (PART, "default: 3", "x: expected one mapping of fields per recipe name"),
    ],
)
def test_a_wrong_file_of_a_dataset_is_one_line(old: str, new: str, line: str) -> None:
    assert old in PART
    with pytest.raises(InputError, match=f"^{line}") as raised:
        read_dataset_part(PART.replace(old, new), "x")
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------ keys


def test_the_key_names_the_training_only() -> None:
    key = small().key()
    assert small(seed=9, precision="bf16", protocol=["q", "r"]).key() == key
    for change in ({"epochs": 3}, {"optim": {"name": "adamw", "lr": 2e-4}}, {"options": {"a": 1}}):
        assert small(**change).key() != key


def test_a_key_stays_when_it_was_written_out_or_a_field_is_added() -> None:
    # The value stands in the names of records: a change would orphan all of them.
    assert small().key() == "ad8a2c28f5"
    written_out = small(flip=0.5, image_size=224, schedule={"name": "constant"})
    assert written_out.key() == small().key()

    class Later(Recipe):
        label_smoothing: float = 0.0

    assert Later.model_validate(small().model_dump()).key() == small().key()


def test_run_names_tell_seed_and_precision() -> None:
    key = small().key()
    assert small(seed=3).run_name() == f"m-d-default-{key}-seed3"
    assert small(precision="bf16").run_name() == f"m-d-default-{key}-seed0-bf16"


# ----------------------------------------------------------------------------------- assignments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5E3", 1500.0),
        ("3", 3),
        ("-0.5", -0.5),
        ("true", True),
        ("null", None),
        ("sgd", "sgd"),
        ("[1, 2]", [1, 2]),
        ("{a: 1}", {"a": 1}),
        ("a=b", "a=b"),
        ("''", ""),
    ],
)
def test_assigned_values_are_yaml_with_plain_exponents(text: str, value: Any) -> None:
    assigned = parse_assignments([f"x.y={text}"])["x"]["y"]
    assert assigned == value
    assert type(assigned) is type(value)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_survives_the_command_line(value: float) -> None:
    assigned = parse_assignments([f"optim.lr={value!r}"])["optim"]["lr"]
    assert isinstance(assigned, float)
    assert assigned == value


def test_precision_is_text_that_looks_like_a_number() -> None:
    assert recipe_of("sat", "default", overrides=parse_assignments(["precision=32"])) == recipe_of(
        "sat", "default"
    )


def test_assignments_join_and_the_last_one_wins() -> None:
    given = ["optim.lr=1", "optim.eps=2", "optim.lr=3", "epochs=4"]
    assert parse_assignments(given) == {"optim": {"lr": 3, "eps": 2}, "epochs": 4}


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("epohs=3", "unknown recipe field 'epohs'; did you mean 'epochs'?"),
        ("optim.lrr=1", "unknown recipe field 'optim.lrr'; did you mean 'lr'?"),
        ("schedule.evry=[1]", "unknown recipe field 'schedule.evry'; did you mean 'every'?"),
        ("epochs=many", "recipe field 'epochs': "),
        ("epochs=0", "recipe field 'epochs': 0 would leave the method untrained"),
        ("epochs=-1", "recipe field 'epochs': .*greater than or equal to 0"),
        ("optim=null", "recipe field 'optim': .*training needs one"),
        ("train_labels=shufled", "recipe field 'train_labels': .*'official' or 'shuffled'"),
        ("backbone=none", "the method needs a backbone; 'none' is for methods without one"),
        ("weights=abc", "recipe field 'weights' is set by --weights, not by --set"),
        ("epochs=", "recipe field 'epochs': "),
        ("optim=adamw", "recipe field 'optim': "),
        ("optim.name=adam", "recipe field 'optim.name': .*'adamw' or 'sgd'"),
        ("optim.lr=.nan", "recipe field 'optim.lr': "),
        ("schedule.every=[0]", "recipe field 'schedule.every.0': .*greater than or equal to 1"),
        ("precision=16", "recipe field 'precision': "),
        ("method=cam", "recipe field 'method' is set by --method, not by --set"),
        ("name=declared", "recipe field 'name' is set by --recipe, not by --set"),
        ("epochs", "--set takes a.b=value, got 'epochs'"),
        ("=3", "--set takes a.b=value, got '=3'"),
        ("options.a=[1", "--set options.a: '\\[1' is no value: "),
    ],
)
def test_a_wrong_assignment_is_one_line(assignment: str, line: str) -> None:
    with pytest.raises(InputError, match=f"^{line}") as raised:
        recipe_of("sat", "default", overrides=parse_assignments([assignment]))
    assert "\n" not in str(raised.value)


def test_a_method_without_that_recipe_says_which_it_has() -> None:
    with pytest.raises(InputError, match="'m' has no recipe 'declared'; it has: default, released"):
        resolve({"released": {}, "default": {}}, "m", "d", "declared", {})


@pytest.mark.parametrize("text", ["a: [", "- a", "default: 3", ""])
def test_a_recipe_file_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"^recipes of 'm': ") as raised:
        read_sections(text, "recipes of 'm'")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("schedule.name=step", "needs epochs, such as schedule.every"),
        ("schedule.name=milestones", "needs epochs, such as schedule.at"),
        ("backbone_args.drop_path_rate=2", "drop_path_rate is a probability"),
        ("optim.momentum=0", "nesterov needs momentum"),
        ("optim.betas=[2, 3]", "less than 1"),
        ("optim.eps=-1", "greater than or equal to 0"),
        ("protocol=[]", "at least 1 item"),
    ],
)
def test_what_would_do_nothing_or_fail_later_is_refused(assignment: str, says: str) -> None:
    sections = {"default": {"backbone": "b", "optim": {"name": "sgd", "lr": 0.1}}}
    with pytest.raises(InputError, match=says):
        resolve(sections, "m", "d", "default", parse_assignments([assignment]))
