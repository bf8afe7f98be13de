"""Recipes: everything that determines a run, as typed data.

A method's recipes stand in the YAML file beside it, one section per recipe name. A section holds
recipe fields; its optional ``datasets`` mapping overrides them for single datasets, by name or
shell pattern, so that the released and declared regimes can say what their authors used where. The
``default`` section is laid over ``wsolbench/regimes/default.yaml``, which is the same for every
method, and over what the dataset asks of that regime in the YAML file beside it.

Layers, each over those before it: regime, dataset (``default`` only), method, the method's part for
the dataset, the user's overrides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from wsolbench.errors import InputError, did_you_mean

RecipeName = Literal["default", "released", "declared"]
RECIPE_NAMES: tuple[RecipeName, ...] = ("default", "released", "declared")

#: fields that do not change what is trained, or that identify a record on their own
_NOT_IN_KEY = frozenset({"seed", "precision", "protocol"})
#: fields that only training looks at
_TRAINING = frozenset(
    {"epochs", "batch_size", "drop_last", "resize", "flip", "optim", "schedule", "train_labels"}
)
#: fields that describe the backbone
_BACKBONE = frozenset({"backbone", "backbone_args", "pretrained"})
#: fields that have an option of their own, and its name
_OWN_OPTION = {"method": "method", "dataset": "dataset", "name": "recipe", "weights": "weights"}
#: the backbone of a method that has none
NO_BACKBONE = "none"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optim(_Data):
    """The optimiser: ``betas``, ``eps`` are for adamw, ``momentum``, ``nesterov`` for sgd."""

    name: Literal["adamw", "sgd"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = True


class Schedule(_Data):
    """Learning rate over the training.

    Attributes:
        name: ``constant``; ``cosine`` per iteration from the optimiser's rate to ``min_lr``;
            ``step`` multiplies by ``gamma`` at the start of each epoch (counted from 1) that is a
            multiple of any entry of ``every``.
            ``milestones`` does so once for each epoch in ``at``.
    """

    name: Literal["constant", "cosine", "step", "milestones"] = "constant"
    min_lr: float = Field(0.0, ge=0)
    every: tuple[Annotated[int, Field(ge=1)], ...] = ()
    at: tuple[int, ...] = ()
    gamma: float = 0.1

    @model_validator(mode="after")
    def _complete(self) -> Schedule:
        for name, epochs in (("step", self.every), ("milestones", self.at)):
            if self.name == name and not epochs:
                field = "every" if name == "step" else "at"
                raise ValueError(f"'{name}' needs epochs, such as schedule.{field}=[30]")
        return self


class Recipe(_Data):
    """Everything that determines a run.

    Attributes:
        name: the regime: the suite's ``default``, the authors' code as ``released``, or as its
            flags ``declared``.
        backbone: timm name, or ``none`` for a method without one; ``backbone_args`` go to timm's
            constructor (``drop_path_rate``).
        pretrained: start from the backbone's published weights.
        weights: first ten hex digits of the SHA-256 of the trained weights that are scored as they
            are; None where the run trains its own.
        holdout: training images a class set aside to choose thresholds.
        epochs: 0 where nothing is trained.
        optim: None only where nothing is trained.
        train_labels: ``shuffled`` deals the labels of ``train`` out anew, as a control.
        image_size: side of the model's input in pixels; ``resize`` the side before the crop.
        flip: probability of a horizontal flip in training.
        drop_last: drop the last partial batch of an epoch.
        options: the method's own options, checked by its ``Options``.
    """

    method: str
    dataset: str
    name: RecipeName
    backbone: str
    backbone_args: dict[str, float | int | bool | str] = {}
    pretrained: bool = True
    weights: str | None = None
    seed: int = Field(0, ge=0)
    holdout: int = Field(0, ge=0)
    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    drop_last: bool = False
    image_size: int = Field(224, ge=1)
    resize: int = Field(256, ge=1)
    flip: float = Field(0.5, ge=0, le=1)
    optim: Optim | None = Field(None, validate_default=True)
    schedule: Schedule = Schedule()
    train_labels: Literal["official", "shuffled"] = "official"
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(str)] = "32"  # YAML reads a number
    protocol: tuple[str, ...]
    options: dict[str, Any] = {}

    @field_validator("backbone_args")
    @classmethod
    def _probabilities(cls, value: dict[str, Any]) -> dict[str, Any]:
        # timm takes any number and fails at the first step
        for name, rate in value.items():
            if name.endswith("_rate") and not 0 <= float(rate) < 1:
                raise ValueError(f"{name} is a probability, in [0, 1), not {rate}")
        return value

    @field_validator("optim")
    @classmethod
    def _needed_to_train(cls, value: Optim | None, others: ValidationInfo) -> Optim | None:
        if value is None and others.data.get("epochs"):
            raise ValueError("training needs one, such as {name: sgd, lr: 0.01}")
        return value

    @property
    def trained(self) -> bool:
        """Whether the run trains: not a method without parameters, nor weights from a file."""
        return self.epochs > 0

    def key(self) -> str:
        """Ten hex digits that name the training, whatever its seed, precision and scoring."""
        # Without defaults, so that a field added later leaves the keys of older records alone.
        fields = self.model_dump(mode="json", exclude=set(_NOT_IN_KEY), exclude_defaults=True)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]

    def run_name(self) -> str:
        """Folder and file name of this training: readable, and unique by the key."""
        precision = "" if self.precision == "32" else f"-{self.precision}"
        parts = (self.method, self.dataset, self.name, self.key(), f"seed{self.seed}{precision}")
        return "-".join(parts)


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
    weights: str | None = None,
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
        weights: digest of trained weights, which are then not trained.

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
    trains = trainable and weights is None
    fields = _layered(sections[name], dataset, name, part or DatasetPart())
    without_backbone = fields.get("backbone") == NO_BACKBONE
    fields = _merge(fields, _heeded(overrides, trains, without_backbone))
    if not trains:
        fields["epochs"] = 0
    if weights is not None or without_backbone:
        fields["pretrained"] = False
    own = {"method": method, "dataset": dataset, "name": name, "weights": weights}
    recipe = _validated({**fields, **own})
    if trains and not recipe.trained:
        raise InputError(
            "recipe field 'epochs': 0 would leave the method untrained; take 1 or more"
        )
    return recipe


def _layered(
    section: Mapping[str, Any], dataset: str, name: RecipeName, part: DatasetPart
) -> dict[str, Any]:
    """All layers but the user's."""
    part = part if name == "default" else DatasetPart()
    own = {field: value for field, value in section.items() if field != "datasets"}
    fields = _merge(
        regime(name), part.fields, own, _for_dataset(section.get("datasets") or {}, dataset)
    )
    if fields.get("backbone") in part.backbones:
        fields["backbone"] = part.backbones[fields["backbone"]]
    return fields


def _heeded(overrides: Mapping[str, Any], trains: bool, without_backbone: bool) -> dict[str, Any]:
    """The overrides without those that mean nothing to this recipe."""
    if overrides.get("backbone") == NO_BACKBONE and not without_backbone:
        raise InputError(f"the method needs a backbone; '{NO_BACKBONE}' is for methods without one")
    idle = (frozenset() if trains else _TRAINING) | (_BACKBONE if without_backbone else frozenset())
    return {name: value for name, value in overrides.items() if name not in idle}


def _for_dataset(parts: Mapping[str, Any], dataset: str) -> Mapping[str, Any]:
    """The part under the dataset's own name, else under the first pattern that fits it."""
    fitting = (pattern for pattern in parts if fnmatchcase(dataset, pattern))
    name = dataset if dataset in parts else next(fitting, None)
    return {} if name is None else parts[name] or {}


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
        raise InputError(f"{where}: not YAML: {_one_line(error)}") from error
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


def first_problem(error: ValidationError) -> ErrorDetails:
    """The problem to tell first: a misspelt field also makes the right one missing."""
    problems = error.errors()
    return next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])


def validation_line(error: ValidationError, known: Sequence[str], what: str) -> str:
    """Say the first problem of a pydantic error in one line, with the nearest known field."""
    first = first_problem(error)
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        leaf = str(first["loc"][-1])
        return f"unknown {what} '{path}'{did_you_mean(leaf, known)}"
    return f"{what} '{path}': {first['msg']}"


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
        raise InputError(f"--set {path}: '{text}' is no value: {_one_line(error)}") from error
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
