"""A trained run as a thing to hand on: two files that say and hold all that it takes to use it.

``run.json`` is the card: recipe, classes, and for each protocol that scored the run the threshold
and the figures. ``model.safetensors`` holds the weights. Neither holds code or a path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from wsolbench.backbones import misfit
from wsolbench.errors import InputError
from wsolbench.files import write_atomically, write_text
from wsolbench.protocol import Figure
from wsolbench.recipe import Recipe
from wsolbench.results import DatasetStamp, Level, Percent, Result, ThresholdSource
from wsolbench.validation import validation_line

CARD = "run.json"
WEIGHTS = "model.safetensors"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scored(_Data):
    """What scoring under one protocol gave: as in :class:`wsolbench.results.Result`."""

    version: int
    threshold: Level | None
    threshold_source: ThresholdSource
    percentile: Level | None
    figures: dict[Figure, Percent]
    oracle: tuple[Figure, ...]


class Card(_Data):
    """What a saved run is.

    Attributes:
        recipe: how it was trained.
        class_names: in label order.
        dataset: what it was trained and scored on.
        sha256: of the file of weights.
        scored: by protocol.
        commit: of the code that trained it.
        command: the one that makes it again.
    """

    schema_version: Literal[1] = 1
    recipe: Recipe
    class_names: tuple[str, ...]
    dataset: DatasetStamp
    pretraining: str | None
    supervision: str
    sha256: str
    scored: dict[str, Scored]
    commit: str | None
    command: str


def save_run(
    folder: Path, model: nn.Module, results: Sequence[Result], class_names: Sequence[str]
) -> None:
    """Write a run that was trained and scored; what other protocols said of these weights stays.

    Args:
        folder: where; its files are replaced.
        model: the trained method, on any device.
        results: records of this run, at least one.
        class_names: in label order.

    Raises:
        WsolbenchError: when a file cannot be written.
    """
    state = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    content = save(state)
    sha256 = hashlib.sha256(content).hexdigest()
    earlier = _scored_before(folder, sha256)
    # The card last: it names its weights, and a card with other weights beside it is refused.
    write_atomically(folder / WEIGHTS, lambda stream: stream.write(content))
    first = results[0]
    card = Card(
        recipe=first.recipe,
        class_names=tuple(class_names),
        dataset=first.dataset,
        pretraining=first.pretraining,
        supervision=first.supervision,
        sha256=sha256,
        scored=earlier | {result.protocol.name: _scored(result) for result in results},
        commit=first.environment.commit,
        command=first.command,
    )
    write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> Card:
    """Read what a saved run is.

    Raises:
        InputError: when the folder holds none, or the card is damaged.
    """
    file = folder / CARD
    try:
        return Card.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"'{folder}' holds no saved run ({CARD}: {error.strerror}); name one of results/runs"
        ) from error
    except ValidationError as error:
        line = validation_line(error, list(Card.model_fields), "field")
        raise InputError(f"{file} is no card of a run: {line}") from error


def load_weights(folder: Path, card: Card, model: nn.Module) -> None:
    """Load the weights of a saved run into its method.

    Raises:
        InputError: when they are missing, damaged, of another run or of another method.
    """
    file = folder / WEIGHTS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; copy it again") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise InputError(f"{file}: damaged, or of another run than {CARD}; copy both again")
    state = _tensors(content, file)
    difference = misfit(model.state_dict(), state)
    if difference:
        raise InputError(f"{file} does not fit method '{card.recipe.method}' here: {difference}")
    model.load_state_dict(state)


def _tensors(content: bytes, file: Path) -> dict[str, Tensor]:
    try:
        return load(content)
    except SafetensorError as error:
        raise InputError(f"{file}: not readable as safetensors ({error})") from error


def _scored_before(folder: Path, sha256: str) -> dict[str, Scored]:
    try:
        card = read_card(folder)
    except InputError:  # none yet, or one that is about to be replaced
        return {}
    return card.scored if card.sha256 == sha256 else {}


def _scored(result: Result) -> Scored:
    return Scored(
        version=result.protocol.version,
        threshold=result.threshold,
        threshold_source=result.threshold_source,
        percentile=result.percentile,
        figures=result.figures,
        oracle=result.oracle,
    )
