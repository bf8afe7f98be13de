"""How a recipe comes about: layers of fields, each over those before it.

A method's recipes stand in the YAML file beside it, one section per recipe name. A section holds
recipe fields; its optional ``datasets`` mapping overrides them for single datasets, by name or
shell pattern, so that the released and declared regimes can say what their authors used where; so
does ``backbones`` for single backbones, by timm name or pattern. The ``default`` section is laid
over ``wsolbench/regimes/default.yaml``, which is the same for every method, and over what the
dataset asks of that regime in the YAML file beside it.

Layers: regime, dataset (``default`` only), method, the method's part for the dataset, its part for
the backbone, the user's overrides.

A section that names a ``source`` is of a method that looks into another one's trained network:
``source`` holds the other's name under ``method``, and fields laid over its recipe of that name.
All the user's overrides but ``options`` go there, and all else is taken from there.

A section that names ``targets`` is of a method that learns the boxes another one finds. They are
named alike; the other run has a network of its own, so overrides that are about the network, its
optimiser or the scoring stay with the method that the user named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from wsolbench.errors import InputError, did_you_mean, one_line
from wsolbench.recipe import INPUTS, NO_BACKBONE, Optim, Recipe, RecipeName, Schedule
from wsolbench.validation import first_problem, validation_line

#: fields that only training looks at
_TRAINING = frozenset(
    {
        *("shots", "draw", "epochs", "iterations", "batch_size", "drop_last", "resize", "flip"),
        *("optim", "schedule", "train_labels", "micro_batch", "batch_loss", "checkpoint"),
    }
)
#: those of them that say which images there are, and with which labels
_OF_IMAGES = frozenset({"shots", "draw", "train_labels"})
#: fields that describe the backbone
_BACKBONE = frozenset({"backbone", "backbone_args", "pretrained"})
#: mappings of a section that are no fields
_PARTS = frozenset({"datasets", "backbones"})
#: fields that have an option of their own, and its name
_OWN_OPTION = {"method": "method", "dataset": "dataset", "name": "recipe", "weights": "weights"}
#: what a recipe does not take from its source
_NOT_INHERITED = frozenset({"method", "epochs", "optim", "options", "weights", *INPUTS})
#: overrides that are a run's own, and do not go on to the runs that it builds on
_NOT_PASSED = frozenset({"options", *INPUTS})
#: fields that a run and those that it builds on have in common: their keys do not tell them apart
_SHARED = frozenset({"seed", "draw", "precision"})
#: those that do not go on to a run with a network of its own either
_OF_ONE_NETWORK = frozenset({"backbone", "backbone_args", "optim", "schedule", "protocol"})

#: resolves the recipe of another method, with the same name and dataset, from overrides and the
#: digest of its weights
Other = Callable[[str, Mapping[str, Any], str | None], Recipe]


@dataclass(frozen=True)
class DatasetPart:
    """What a dataset asks of the default regime.

    Attributes:
        fields: recipe fields, laid between the regime and the method's own section.
        backbones: stand-ins: where a recipe names the left one, the right one is taken.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)


def resolve(
    sections: Mapping[str, Any],
    method: str,
    dataset: str,
    name: RecipeName,
    overrides: Mapping[str, Any],
    *,
    part: DatasetPart | None = None,
    trainable: bool = True,
    fits: bool = False,
    weights: str | None = None,
    other: Other | None = None,
) -> Recipe:
    """Lay the layers of a recipe over each other, see the module.

    Where nothing is trained, overrides of what only training looks at change nothing, and neither
    do overrides of the backbone where the method has none: a command may hold several methods.

    Args:
        sections: content of the method's YAML file.
        method, dataset, name: which recipe.
        overrides: nested fields from the command line.
        part: what the dataset asks of the default regime.
        trainable: whether the method has anything to train.
        fits: whether it looks at training images all the same.
        weights: digest of trained weights, which are then not trained.
        other: resolves the recipes of other methods, for sections that name one.

    Raises:
        InputError: when the recipe does not exist, a field is unknown or of the wrong type, an
            override would contradict the other arguments, or no epoch is left to train in.
    """
    for clash in overrides.keys() & _OWN_OPTION.keys():
        raise InputError(f"recipe field '{clash}' is set by --{_OWN_OPTION[clash]}, not by --set")
    if name not in sections:
        raise InputError(
            f"method '{method}' has no recipe '{name}'; it has: {', '.join(sorted(sections))}"
        )
    chosen = overrides.get("backbone")
    fields = _layered(sections[name], dataset, name, part or DatasetPart(), chosen)
    if "source" in fields and other is not None:
        return _looking_into(fields, method, overrides, other, weights)
    for role in overrides.keys() & (set(INPUTS) - fields.keys()):
        raise InputError(f"method '{method}' has no '{role}'; leave out --set {role}...")
    trains = trainable and weights is None
    without_backbone = fields.get("backbone") == NO_BACKBONE
    fields = _merge(fields, _heeded(overrides, _idle(trains, fits), without_backbone))
    if not trains:
        fields["epochs"] = 0
    if weights is not None or without_backbone:
        fields["pretrained"] = False
    own: dict[str, Any] = {
        "method": method,
        "dataset": dataset,
        "name": name,
        "weights": weights,
    }
    if "targets" in fields and other is not None:
        own["targets"] = _first_run(fields, overrides, other) if trains else None
    recipe = _validated({**fields, **own})
    if trains and not recipe.trained:
        raise InputError(
            "recipe field 'epochs': 0 would leave the method untrained; take 1 or more"
        )
    return recipe


def _looking_into(
    fields: Mapping[str, Any],
    method: str,
    overrides: Mapping[str, Any],
    other: Other,
    weights: str | None,
) -> Recipe:
    """The recipe of a method whose section names a source."""
    source = other(*input_of("source", fields["source"], overrides), weights)
    if not isinstance(overrides.get("options", {}), Mapping):
        raise InputError(f"options={overrides['options']}: name one, as --set options.NAME=VALUE")
    options = _merge(fields.get("options", {}), overrides.get("options", {}))
    inherited = source.model_dump(exclude=set(_NOT_INHERITED))
    own = {"method": method, "epochs": 0, "options": options, "source": source}
    return _validated({**inherited, **own})


def _first_run(fields: Mapping[str, Any], overrides: Mapping[str, Any], other: Other) -> Recipe:
    """The recipe of the run whose boxes a method learns."""
    passed = {name: value for name, value in overrides.items() if name not in _OF_ONE_NETWORK}
    seed = {"seed": fields["seed"]} if "seed" in fields else {}
    return other(*input_of("targets", fields["targets"], {**seed, **passed}), None)


def input_of(role: str, section: Any, overrides: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the method of the run that a recipe names as ``role``, and the overrides for it.

    Args:
        role: the field, one of :data:`~wsolbench.recipe.INPUTS`.
        section: what the recipe file says there.
        overrides: the user's, for the whole.

    Raises:
        InputError: when no method is named, or a field that the other run shares with this one.
    """
    override = overrides.get(role, {})
    for given in (section, override):
        if not isinstance(given, Mapping):
            raise InputError(f"{role}={given}: name a method, as --set {role}.method=NAME")
    named = _merge(section, override)
    for name in _SHARED & named.keys():
        raise InputError(f"'{role}.{name}' is that of the whole run; leave it out")
    method = named.pop("method", None)
    if not isinstance(method, str):
        raise InputError(f"'{role}' names no method; add --set {role}.method=NAME")
    passed = {name: value for name, value in overrides.items() if name not in _NOT_PASSED}
    return method, _merge(passed, named)


def _layered(
    section: Mapping[str, Any], dataset: str, name: RecipeName, part: DatasetPart, chosen: Any
) -> dict[str, Any]:
    """All layers but the user's, who may have chosen the backbone."""
    part = part if name == "default" else DatasetPart()
    own = {field: value for field, value in section.items() if field not in _PARTS}
    fields = _merge(
        regime(name), part.fields, own, _part_for(section.get("datasets") or {}, dataset)
    )
    if fields.get("backbone") in part.backbones:
        fields["backbone"] = part.backbones[fields["backbone"]]
    backbone = fields.get("backbone") if chosen is None else chosen
    return _merge(fields, _part_for(section.get("backbones") or {}, str(backbone)))


def _idle(trains: bool, fits: bool) -> frozenset[str]:
    """Fields of training that nothing looks at."""
    if trains:
        return frozenset()
    return _TRAINING - _OF_IMAGES if fits else _TRAINING


def _heeded(
    overrides: Mapping[str, Any], idle: frozenset[str], without_backbone: bool
) -> dict[str, Any]:
    """The overrides without those that mean nothing to this recipe."""
    if overrides.get("backbone") == NO_BACKBONE and not without_backbone:
        raise InputError(f"the method needs a backbone; '{NO_BACKBONE}' is for methods without one")
    idle |= _BACKBONE if without_backbone else frozenset()
    return {name: value for name, value in overrides.items() if name not in idle}


def _part_for(parts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The part under the very name, else under the first pattern that fits it."""
    fitting = (pattern for pattern in parts if fnmatchcase(name, pattern))
    key = name if name in parts else next(fitting, None)
    return {} if key is None else parts[key] or {}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["optim.lr=1e-4"]`` into ``{"optim": {"lr": 1e-4}}``; values are YAML.

    Raises:
        InputError: when an assignment has no ``=`` or is no YAML.
    """
    merged: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(f"--set takes a.b=value, got '{assignment}'")
        merged = _merge(merged, _nest(path.split("."), _parse_value(path, text)))
    return merged


def read_sections(text: str, where: str) -> dict[str, Any]:
    """Read a method's recipe file; ``where`` names it in errors."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {one_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"{where}: expected one mapping of fields per recipe name")
    return content


def read_dataset_part(text: str, where: str) -> DatasetPart:
    """Read a dataset's recipe file, whose one section is ``default``.

    Args:
        text: YAML.
        where: what errors call the file.

    Raises:
        InputError: when it is no such file, or names a field that is none.
    """
    sections = read_sections(text, where)
    for other in sections.keys() - {"default"}:
        raise InputError(f"{where}: a dataset asks something of 'default' only, not of '{other}'")
    fields = dict(sections.get("default", {}))
    backbones = fields.pop("backbones", {})
    known = Recipe.model_fields.keys() - _OWN_OPTION.keys()
    for unknown in fields.keys() - known:
        hint = did_you_mean(unknown, known | {"backbones"})
        raise InputError(f"{where}: unknown recipe field '{unknown}'{hint}")
    if not isinstance(backbones, dict) or not all(isinstance(b, str) for b in backbones.values()):
        raise InputError(f"{where}: 'backbones' names a stand-in for each backbone, as a: b")
    return DatasetPart(fields, backbones)


def regime(name: RecipeName) -> dict[str, Any]:
    """Fields that all methods share under one recipe name."""
    file = resources.files("wsolbench") / "regimes" / f"{name}.yaml"
    return yaml.safe_load(file.read_text("utf-8")) or {}


def default_holdout(part: DatasetPart) -> int:
    """Held-out images a class under the default regime of a dataset."""
    return int(_merge(regime("default"), part.fields)["holdout"])


def _validated(fields: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise InputError(validation_line(error, _known_beside(error), "recipe field")) from error


def _known_beside(error: ValidationError) -> list[str]:
    location = first_problem(error)["loc"]
    parents: dict[str, type[BaseModel]] = {"optim": Optim, "schedule": Schedule}
    model = parents.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    return list(model.model_fields)


def _parse_value(path: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {path}: '{text}' is no value: {one_line(error)}") from error
    return _number(value)


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4 as text for want of a dot
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    return {path[0]: _nest(path[1:], value) if len(path) > 1 else value}


def _merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            both = isinstance(below, dict) and isinstance(value, Mapping)
            merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged
