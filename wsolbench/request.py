"""What ``run`` is asked for: the options that say what to do, from the command line or a suite."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from wsolbench import processes
from wsolbench.building import method_options
from wsolbench.errors import InputError, did_you_mean
from wsolbench.files import sha256
from wsolbench.layers import (
    DatasetPart,
    input_of,
    parse_assignments,
    read_dataset_part,
    read_sections,
    resolve,
)
from wsolbench.protocol import load_protocol
from wsolbench.recipe import NO_BACKBONE, RECIPE_NAMES, Recipe, RecipeName
from wsolbench.registry import DATASETS, METHODS, resource_text
from wsolbench.validation import validation_line

#: hex digits of the SHA-256 that tell two files of weights apart
_DIGEST = 10
#: options that do nothing where nothing is trained
_IDLE_UNTRAINED = frozenset({"epochs", "batch_size"})
#: what stands for all images among numbers of images a class
_ALL = "all"


def _listed(value: Any) -> Any:
    """A list of what stands alone or between commas, as on the command line."""
    parts = value.split(",") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    return [part.strip() if isinstance(part, str) else part for part in parts]


def _shots(value: Any) -> Any:
    return [None if part == _ALL else part for part in _listed(value)]


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_listed)]
Shots = Annotated[tuple[Annotated[int, Field(ge=1)] | None, ...], BeforeValidator(_shots)]
Assignments = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Request(BaseModel):
    """Runs that differ in method, seed and in which training images they use, and in no more.

    Attributes:
        method, seed: a run for each of each; without seeds, each recipe's own.
        shots, draws: a run for each number of images a class (None for all of them) and each of
            ``draws`` choices of them; of all there is one choice.
        dataset, recipe: which of the methods' recipes.
        backbone, epochs, batch_size, protocol, precision: override the recipe's fields.
        set: assignments ``a.b=value`` to any field.
        weights: trained weights of the one method, to be scored as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Names
    dataset: str
    recipe: str = "default"
    backbone: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    protocol: Names | None = None
    precision: str | int | None = None
    set: Assignments = ()
    seed: Numbers = ()
    shots: Shots = ()
    draws: Annotated[int, Field(ge=1)] | None = None
    weights: Path | None = None

    def recipes(self) -> list[Recipe]:
        """Resolve one recipe for each method, seed, number of images a class and draw of them.

        Raises:
            InputError: for an unknown method, dataset, recipe, field or protocol, a value that does
                not fit, draws of nothing, or weights that are not there or asked of several
                methods.
        """
        self._check_said_once()
        digest = self._digest()
        recipes: list[Recipe] = []
        for method in self.method:
            for fields in self._varied():
                recipe = self._recipe(method, fields, digest)
                if recipe not in recipes:  # what trains nothing is the same for all shots
                    recipes.append(recipe)
        return recipes

    def but(self, fields: Mapping[str, Any]) -> Request:
        """The same with other values for some options."""
        return make_request({**self.model_dump(exclude_unset=True), **fields})

    def command(self, recipe: Recipe, device: str, compiled: bool = False) -> str:
        """The command that makes one of the records again; where data lie is the user's affair."""
        words = [
            f"--method {recipe.method}",
            f"--dataset {self.dataset}",
            f"--recipe {self.recipe}",
        ]
        for option, value in self._overrides().items():
            if not _idle(option, recipe):
                text = ",".join(value) if option == "protocol" else str(value)
                words.append(f"--{option.replace('_', '-')} {shlex.quote(text)}")
        words.extend(f"--set {shlex.quote(assignment)}" for assignment in self.set)
        if self.shots and recipe.shots is not None:
            words.append(f"--set shots={recipe.shots} --set draw={recipe.draw}")
        if self.weights is not None:
            words.append(f"--weights {shlex.quote(_without_place(self.weights))}")
        words.extend(["--compile"] if compiled else [])
        words.append(f"--device {device} --seed {recipe.seed}")
        return " ".join([f"{processes.launcher()} run_benchmark.py", *words])

    def _check_said_once(self) -> None:
        given = {**self._overrides(), **({"seed": self.seed} if self.seed else {})}
        for name in sorted(parse_assignments(self.set).keys() & given.keys()):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"recipe field '{name}' is set by {option} and by --set; drop one")

    def _varied(self) -> Iterator[dict[str, int]]:
        """Fields of one recipe after the other, in which the runs of a method differ."""
        assigned = parse_assignments(self.set).keys() & {"shots", "draw"}
        if self.shots and assigned:
            raise InputError(f"recipe field '{min(assigned)}' is set by --shots and --draws here")
        if self.draws is not None and not self.shots:
            raise InputError("--draws are choices of images; say how many with --shots K[,K2...]")
        for shots in self.shots or (None,):
            chosen = {} if shots is None else {"shots": shots}
            for draw in range(1 if shots is None else self.draws or 1):
                drawn = {"draw": draw} if draw else {}
                for seed in self.seed or (None,):
                    yield {**chosen, **drawn, **({} if seed is None else {"seed": seed})}

    def _recipe(self, method: str, varied: Mapping[str, int], digest: str | None) -> Recipe:
        if self.recipe not in RECIPE_NAMES:
            raise InputError(
                f"unknown recipe '{self.recipe}'{did_you_mean(self.recipe, RECIPE_NAMES)}"
            )
        overrides = {**self._overrides(), **varied, **parse_assignments(self.set)}
        part = dataset_part(self.dataset)
        recipe = recipe_of(method, self.dataset, self.recipe, overrides, part, digest)
        for protocol in recipe.protocol:
            load_protocol(protocol)
        return recipe

    def _overrides(self) -> dict[str, Any]:
        given = {
            "backbone": self.backbone,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "protocol": self.protocol,
            "precision": self.precision,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _digest(self) -> str | None:
        if self.weights is None:
            return None
        if len(self.method) > 1:
            raise InputError("--weights is the file of one method; name one --method")
        if not self.weights.is_file():
            raise InputError(f"no weights file '{self.weights}'; check --weights")
        return sha256(self.weights)[:_DIGEST]


def make_request(fields: Mapping[str, Any]) -> Request:
    """Check the options of one request.

    Raises:
        InputError: naming the first option that is unknown or does not fit.
    """
    try:
        return Request.model_validate(fields)
    except ValidationError as error:
        raise InputError(validation_line(error, list(Request.model_fields), "option")) from error


def recipe_of(
    method: str,
    dataset: str,
    name: RecipeName,
    overrides: Mapping[str, Any],
    part: DatasetPart,
    weights: str | None = None,
) -> Recipe:
    """Resolve a recipe with those of the runs that it builds on, see :func:`layers.resolve`.

    Any method can be given another one's class scores, by overrides that name a ``classifier``.

    Raises:
        InputError: as there, and for an unknown method or option.
    """

    def other(method: str, overrides: Mapping[str, Any], weights: str | None) -> Recipe:
        return recipe_of(method, dataset, name, overrides, part, weights)

    if "classifier" in overrides:
        own = {field: value for field, value in overrides.items() if field != "classifier"}
        classifier = other(*input_of("classifier", {}, overrides), None)
        return other(method, own, weights).model_copy(update={"classifier": classifier})
    info = METHODS.get(method).info
    recipe = resolve(
        recipe_sections(method),
        method,
        dataset,
        name,
        overrides,
        part=part,
        trainable=info.trainable,
        fits=info.fits,
        weights=weights,
        other=other,
    )
    # as the method reads them: whether a default was spelt out makes no other recipe
    options = method_options(recipe).model_dump(mode="json")
    return recipe.model_copy(update={"options": options})


def dataset_part(dataset: str) -> DatasetPart:
    """Return what a dataset asks of the default regime, in the YAML file beside it.

    Raises:
        InputError: for an unknown dataset, or a file that is wrong.
    """
    text = resource_text(DATASETS.get(dataset))
    return DatasetPart() if text is None else read_dataset_part(text, f"recipe of '{dataset}'")


def recipe_sections(method: str) -> dict[str, Any]:
    """Return the recipes of a method, in the YAML file beside it.

    Raises:
        InputError: for an unknown method, or a file that is missing or wrong.
    """
    text = resource_text(METHODS.get(method))
    if text is None:
        raise InputError(f"method '{method}' has no recipe file; put a .yaml beside its .py")
    return read_sections(text, f"recipes of '{method}'")


def _idle(option: str, recipe: Recipe) -> bool:
    if option == "backbone":
        return recipe.backbone == NO_BACKBONE
    return option in _IDLE_UNTRAINED and not recipe.training.trained


def _without_place(file: Path) -> str:
    """The file as seen from here, or its name alone: a record names no folder of the machine."""
    absolute, here = file.resolve(), Path.cwd().resolve()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else file.name
