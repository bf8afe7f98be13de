"""Recipes that name another run: what they take from it, what goes to it, what tells them apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolbench.errors import InputError
from wsolbench.layers import resolve
from wsolbench.provenance import supervision
from wsolbench.ranking import groups
from wsolbench.recipe import Recipe
from wsolbench.request import make_request

LOOKS: dict[str, Any] = {"source": {"method": "trained"}, "options": {"layer": None}}
TRAINED: dict[str, Any] = {
    "backbone": "test_resnet",
    "optim": {"name": "sgd", "lr": 0.1},
    "options": {"stride": 16},
    "datasets": {"few*": {"epochs": 3}},
}


def resolved(overrides: dict[str, Any], weights: str | None = None, **section: Any) -> Recipe:
    """The recipe of a method that looks into ``trained`` or ``again``, which is the same."""

    def other(method: str, overrides: Any, weights: str | None) -> Recipe:
        sections = {"default": TRAINED if method in ("trained", "again") else LOOKS}
        return resolve(sections, method, "few", "default", overrides, weights=weights, other=other)

    sections = {"default": {**LOOKS, **section}}
    return resolve(
        sections,
        "looks",
        "few",
        "default",
        overrides,
        trainable=False,
        weights=weights,
        other=other,
    )


def alone(overrides: dict[str, Any], weights: str | None = None) -> Recipe:
    return resolve({"default": TRAINED}, "trained", "few", "default", overrides, weights=weights)


OVERRIDES: dict[str, Any] = {
    "epochs": 7,
    "batch_size": 5,
    "seed": 3,
    "backbone": "test_vit",
    "image_size": 96,
    "holdout": 1,
    "optim": {"lr": 0.5},
    "train_labels": "shuffled",
    "precision": "bf16",
    "protocol": ["wsoleval"],
}


@settings(max_examples=30, deadline=None)
@given(chosen=st.sets(st.sampled_from(sorted(OVERRIDES))))
def test_the_source_is_the_run_that_it_would_be_alone(chosen: set[str]) -> None:
    overrides = {name: OVERRIDES[name] for name in chosen}
    recipe = resolved({**overrides, "options": {"layer": "x"}})
    assert recipe.source == alone(overrides) == recipe.training
    assert recipe.source.key() == alone(overrides).key()
    assert not recipe.trained
    assert recipe.options == {"layer": "x"}
    for field in ("backbone", "image_size", "holdout", "seed", "precision", "protocol"):
        assert getattr(recipe, field) == getattr(recipe.source, field)


def test_a_key_holds_that_of_the_source_and_neither_its_seed_nor_its_scoring() -> None:
    plain = resolved({})
    same = [resolved({"seed": 4}), resolved({"protocol": ["a"]}), resolved({"precision": "bf16"})]
    assert {r.key() for r in same} == {plain.key()}
    others = [
        resolved({"optim": {"lr": 0.2}}),
        resolved({"options": {"layer": "x"}}),
        resolved({"source": {"options": {"stride": 8}}}),
        resolved({"source": {"method": "again"}}),
        resolved({}, weights="0123456789"),
    ]
    assert len({r.key() for r in (plain, *others)}) == 1 + len(others)
    assert Recipe.model_validate_json(plain.model_dump_json()) == plain


def test_fields_of_the_source_go_before_those_of_all() -> None:
    recipe = resolved({"epochs": 4, "source": {"epochs": 6, "options": {"stride": 8}}})
    assert recipe.source is not None
    assert (recipe.source.epochs, recipe.source.options) == (6, {"stride": 8})


def test_trained_weights_are_those_of_the_source() -> None:
    recipe = resolved({}, weights="0123456789")
    assert recipe.weights is None
    assert recipe.source == alone({}, weights="0123456789")
    assert not recipe.training.trained


@pytest.mark.parametrize(
    ("overrides", "section", "said"),
    [
        ({"source": "cam"}, {}, "source=cam: name a method, as --set source.method=NAME"),
        ({}, {"source": {"epochs": 1}}, "'source' names no method; add --set source.method=NAME"),
        ({"source": {"method": "looks"}}, {}, "its source has none itself"),
        ({"options": 3}, {}, "options=3: name one, as --set options.NAME=VALUE"),
        ({"source": {"seed": 1}}, {}, "'source.seed' is that of the whole run"),
        ({"source": {"name": "released"}}, {}, "'name' is set by --recipe"),
        ({"source": {"epochs": 0}}, {}, "would leave the method untrained"),
    ],
)
def test_a_source_that_is_none_is_one_line(
    overrides: dict[str, Any], section: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as raised:
        resolved(overrides, **section)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_trains_itself_takes_no_source() -> None:
    with pytest.raises(InputError, match="'trained' has no 'source'; leave out"):
        alone({"source": {"method": "again"}})


def test_a_request_shares_the_training_of_its_source() -> None:
    how = {"dataset": "toybirds-small", "epochs": 2, "seed": [0, 1]}
    looking = make_request({"method": ["grad-cam", "score-cam"], **how})
    plain = make_request({"method": "cam", **how})
    runs = {r.run_name() for r in plain.recipes()}
    assert {r.training.run_name() for r in looking.recipes()} == runs
    assert len({r.run_name() for r in looking.recipes()}) == 4
    command = looking.command(looking.recipes()[0], "cpu")
    assert "--method grad-cam" in command
    assert "--epochs 2" in command


def test_a_classifier_is_the_run_that_it_would_be_alone() -> None:
    how = {"dataset": "toybirds-small", "epochs": 2, "seed": 1}
    given = ["classifier.method=cam", "classifier.options.fast_rate=3"]
    baseline, looking = (
        make_request({"method": m, **how, "set": given}).recipes()[0]
        for m in ("center-box", "grad-cam")
    )
    (alone,) = make_request({"method": "cam", **how, "set": "options.fast_rate=3"}).recipes()
    (plain,) = make_request({"method": "center-box", **how}).recipes()
    for recipe in (baseline, looking):
        assert recipe.classifier == alone
    assert looking.source is not None
    assert looking.source.key() != alone.key()
    assert baseline.key() != plain.key()
    assert supervision(baseline) == "labels, another run (cam)"
    assert not baseline.trained


def test_supervision_is_that_of_the_whole_chain() -> None:
    request = {"dataset": "toybirds-small", "method": "grad-cam"}
    (recipe,) = make_request(request).recipes()
    (shuffled,) = make_request({**request, "set": "train_labels=shuffled"}).recipes()
    assert supervision(recipe) == "labels, another run (cam)"
    assert supervision(shuffled) == "shuffled labels, another run (cam)"


def test_a_run_that_looks_stands_beside_the_run_that_it_looks_into() -> None:
    from records import make_result

    trained = Recipe.model_validate({**make_result().recipe.model_dump(), "epochs": 7})
    fields = trained.model_dump(exclude={"optim", "options"})
    looks = {**fields, "method": "looks", "epochs": 0, "source": trained}
    results = [
        make_result(trained.model_dump()),
        make_result({**looks, "optim": None, "options": {}}),
        make_result({"epochs": 9}),
    ]
    made = [{r.recipe.method for r in group.results} for group in groups(results)]
    assert sorted(map(sorted, made)) == [["alpha"], ["alpha", "looks"]]
