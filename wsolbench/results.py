"""Result records: one JSON file a run and protocol, and the folder that keeps them.

A results folder holds the records in ``measured/`` and the pages made from them beside it. Whatever
is written there appears whole or not at all.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from wsolbench import examples as example_maps
from wsolbench.errors import InputError
from wsolbench.examples import Examples
from wsolbench.files import write_atomically, write_text
from wsolbench.metrics.image_table import ImageTable, from_bytes, to_bytes
from wsolbench.protocol import FIGURES, Figure
from wsolbench.recipe import Recipe
from wsolbench.validation import validation_line

MEASURED = "measured"
#: the curve that holds the levels at which the others were taken
THRESHOLDS = "thresholds"
#: digits of the SHA-256 of a file beside a record in its name
_DIGEST = 10


def _rounded(value: float | None) -> float | None:
    # Four decimals keep 1000 thresholds x 8 curves below 100 kB; JSON has no NaN.
    return None if value is None or not math.isfinite(value) else round(value, 4)


#: the sum of an average precision may end a hair above 100
Percent = Annotated[float, Field(ge=0, le=100 + 1e-6, allow_inf_nan=False)]
CurvePoint = Annotated[float | None, AfterValidator(_rounded)]
Level = Annotated[float, Field(allow_inf_nan=False), AfterValidator(lambda x: round(x, 6))]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ThresholdSource = Literal["held-out", "oracle", "fixed", "none"]


def has_own_axis(curve: str) -> bool:
    """Whether a curve pairs with another one instead of the thresholds: precision and recall."""
    return curve.startswith("pxap_")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProtocolStamp(_Data):
    """Which version of which protocol scored the run."""

    name: str
    version: int
    title: str


class DatasetStamp(_Data):
    """Which data the run saw: ``train``, ``val`` and ``test`` count images.

    ``holdout`` says what ``val`` is; None in records older than it.
    """

    name: str
    title: str
    classes: int = Field(ge=1)
    train: int = Field(ge=0)
    val: int = Field(ge=0)
    test: int = Field(ge=0)
    fingerprint: str
    holdout: str | None = None


class Inference(_Data):
    """What localizing costs: one batch again and again, without reading or scoring anything.

    Attributes:
        images_per_second: by the wall clock.
        peak_memory_bytes: as in :class:`Cost`.
        batch_size: images of the batch.
        device_type, device, threads, compiled: of the machine that scored, as in
            :class:`Environment`.
    """

    images_per_second: Seconds
    peak_memory_bytes: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    device_type: Literal["cpu", "cuda"]
    device: str
    threads: int = Field(ge=1)
    compiled: bool = False


class Cost(_Data):
    """What the run cost, in the recipe's precision; training on the environment's device.

    Attributes:
        parameters, trainable_parameters: numbers of parameters of the whole model.
        macs: multiply-accumulates of one image's localization; None where they were not counted.
        train_seconds, score_seconds: wall-clock time.
        train_images_per_second: images trained on, by training time.
        peak_memory_bytes: most taken in training: of the accelerator, or by the process on a CPU.
        inference: None in records from before it was measured.
    """

    parameters: int = Field(ge=0)
    trainable_parameters: int = Field(ge=0)
    macs: int | None = None
    train_seconds: Seconds
    score_seconds: Seconds
    train_images_per_second: Seconds
    peak_memory_bytes: int = Field(ge=0)
    inference: Inference | None = None


class Environment(_Data):
    """Where the run took place; names no host and no path.

    Attributes:
        commit: git commit of the checkout; None outside of one.
        dirty: whether the checkout had changes beside results; None outside of one.
        device: name of the processor or accelerator.
        threads: threads of one operation on the CPU.
        compiled: whether torch.compile was asked for.
        processes: how many trained together.
    """

    commit: str | None
    dirty: bool | None
    python: str
    torch: str
    torchvision: str | None
    timm: str
    numpy: str
    opencv: str
    platform: str
    device_type: Literal["cpu", "cuda"]
    device: str
    threads: int = Field(ge=1)
    compiled: bool = False
    processes: int = Field(1, ge=1)


class Weights(_Data):
    """Weights that training started from; ``sha256`` of their file where it is known."""

    name: str
    sha256: str | None = None


class Clean(_Data):
    """Figures without the test images that the pre-training had in its training set.

    Attributes:
        left_out: how many test images were.
        figures: those that can be had without scoring again.
    """

    left_out: int = Field(ge=1)
    figures: dict[Figure, Percent]


class InputStamp(_Data):
    """A run that another one builds on.

    Attributes:
        role: the recipe's field that names it.
        of: method of the run that builds on it.
        method: its own.
        run: its name, as its checkpoint's folder has it.
        commit: of the code that trained it; None outside of a checkout.
        sha256: of the trained method's state, see :func:`wsolbench.engine.weights.state_digest`.
        protocol, threshold, percentile: how its maps became boxes, where these were learnt.
    """

    role: str
    of: str
    method: str
    run: str
    recipe_key: str
    seed: int
    supervision: str
    pretraining: str | None
    commit: str | None
    sha256: str
    protocol: str | None = None
    threshold: Level | None = None
    percentile: Level | None = None


class FileStamp(_Data):
    """A file beside the record, named by its content."""

    sha256: str
    bytes: int = Field(ge=0)


class Identity(NamedTuple):
    """What makes two records the same experiment: a later one replaces the earlier."""

    recipe_key: str
    seed: int
    draw: int
    split: str
    protocol: str
    fingerprint: str
    device_type: str
    precision: str


class Result(_Data):
    """The record of one run under one protocol.

    Attributes:
        recipe: the resolved recipe; ``recipe_key`` its key when the run took place.
        figures: percentages; a figure that the protocol does not define is absent.
        oracle: figures that were chosen on the evaluated split.
        clean: the figures again without test images that the pre-training is known to have seen;
            None where no list says which, or there was no pre-training there.
        threshold: level of the single-threshold figures, None when there is none.
        threshold_source: where it came from.
        percentile: that of the maps' normalisation, chosen along with the threshold where the
            protocol leaves a choice; None where there is none.
        curves: as :class:`wsolbench.metrics.scorer.Scores` has them, to four decimals:
            ``thresholds`` (T,), curves (T,) in percent at these, and ``pxap_precision`` and
            ``pxap_recall`` (any length) in [0, 1]; None where undefined.
        dead_maps: constant or non-finite maps among those scored.
        table: which table of images belongs to the record; None where there is none.
        examples: which file of example maps does; None where there is none.
        environment: where and with which code the training ended.
        scoring_commit: commit of the code that scored, which may be a later one.
        iterations: steps of the optimiser; None where nothing was trained, and in records made
            before they were counted.
        history: mean losses of each epoch.
        weights: None when training started from random values.
        pretraining: what the weights had seen, as the tag of the backbone says.
        supervision: what the method may see beside the images, and the runs that it builds on.
        inputs: those runs, each before the ones that it builds on in turn.
        command: the one command that makes this record again.
        created: end of the run, with time zone.
    """

    schema_version: Literal[1] = 1
    source: Literal["measured"] = "measured"
    recipe: Recipe
    recipe_key: str
    split: Literal["test"] = "test"
    protocol: ProtocolStamp
    figures: dict[Figure, Percent]
    oracle: tuple[Figure, ...] = ()
    clean: Clean | None = None
    threshold: Level | None
    threshold_source: ThresholdSource
    percentile: Level | None = None
    curves: dict[str, tuple[CurvePoint, ...]] = {}
    dead_maps: int = Field(ge=0)
    table: FileStamp | None = None
    examples: FileStamp | None = None
    dataset: DatasetStamp
    cost: Cost
    environment: Environment
    scoring_commit: str | None = None
    iterations: int | None = None
    history: tuple[dict[str, CurvePoint], ...] = ()
    weights: Weights | None
    pretraining: str | None = None
    supervision: str
    inputs: tuple[InputStamp, ...] = ()
    command: str
    created: AwareDatetime

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        if (self.threshold is None) != (self.threshold_source == "none"):
            raise ValueError("a threshold needs a source, and a source a threshold")
        count = len(self.curves.get(THRESHOLDS, ()))
        for name, values in self.curves.items():
            if not has_own_axis(name) and not len(values) == count > 0:
                raise ValueError(f"curve '{name}': {len(values)} values for {count} thresholds")
        return self

    @property
    def saw_boxes(self) -> bool:
        """Whether boxes shaped the weights, in this run or one that it builds on."""
        return "boxes" in self.supervision.split(", ")

    def identity(self) -> Identity:
        """Return what makes this record one experiment.

        The fingerprint is part of it because one dataset name may stand for several folders, such
        as a full dataset and a part of it.
        """
        return Identity(
            self.recipe_key,
            self.recipe.seed,
            self.recipe.draw,
            self.split,
            self.protocol.name,
            self.dataset.fingerprint,
            self.environment.device_type,
            self.recipe.precision,
        )

    def file_name(self) -> str:
        """Return a readable file name that no other identity has."""
        data, device = self.dataset.fingerprint, self.environment.device_type
        return record_name(self.recipe, self.protocol.name, data, device)


def record_name(recipe: Recipe, protocol: str, fingerprint: str, device_type: str) -> str:
    """Return the file name of a recipe's record under a protocol, see :class:`Identity`."""
    return f"{recipe.run_name()}-{protocol}-{fingerprint}-{device_type}.json"


class Loaded(NamedTuple):
    """Records of a folder, sorted, and one line for each file that could not be used."""

    results: list[Result]
    problems: list[str]


def save_result(
    result: Result,
    folder: Path,
    table: ImageTable | None = None,
    examples: Examples | None = None,
) -> Path:
    """Write a record below a results folder, over an earlier one of the same identity.

    The table and the examples go beside it under names of their content, before the record that
    names them: whenever the writing ends, a record and its files belong together.

    Raises:
        InputError: when the folder cannot be written to; the line says what to do.
        WsolbenchError: when the disk is full. In both cases an earlier record is left as it was.
    """
    file = folder / MEASURED / result.file_name()
    former = set(file.parent.glob(f"{glob.escape(file.stem)}.*.npz"))
    contents = {} if table is None else {"table": to_bytes(table)}
    if examples is not None:
        contents["examples"] = example_maps.to_bytes(examples)
    stamps = {name: _stamp(content) for name, content in contents.items()}
    new = {_beside(file, stamp): contents[name] for name, stamp in stamps.items()}
    try:
        for beside, content in new.items():
            write_atomically(beside, _writer(content))
        result = result.model_copy(update=stamps)
        write_text(file, _json(result.model_dump(mode="json")) + "\n")
    except BaseException:
        _remove(set(new) - former)
        raise
    _remove(former - set(new))
    return file


def read_table(result: Result, folder: Path) -> ImageTable:
    """Read the table of images that belongs to a record of a results folder.

    Raises:
        InputError: when the record has none, or the file is missing, damaged or of another run.
    """
    return from_bytes(_read_beside(result, folder, result.table, "table"))


def read_examples(result: Result, folder: Path) -> Examples:
    """Read the example maps that belong to a record of a results folder.

    Raises:
        InputError: when the record has none, or the file is missing, damaged or of another run.
    """
    content = _read_beside(result, folder, result.examples, "example maps")
    return example_maps.from_bytes(content)


def _read_beside(result: Result, folder: Path, stamp: FileStamp | None, what: str) -> bytes:
    record = folder / MEASURED / result.file_name()
    if stamp is None:
        raise InputError(f"{record} has no {what} of its images; run again: {result.command}")
    file = _beside(record, stamp)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; run again") from error
    if hashlib.sha256(content).hexdigest() != stamp.sha256:
        raise InputError(f"{file}: damaged, or the {what} of another run; restore it or run again")
    return content


def _writer(content: bytes) -> Callable[[IO[bytes]], object]:
    return lambda stream: stream.write(content)


def _stamp(content: bytes) -> FileStamp:
    return FileStamp(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _beside(record: Path, stamp: FileStamp) -> Path:
    return record.with_suffix(f".{stamp.sha256[:_DIGEST]}.npz")


def _remove(files: set[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def read_result(file: Path) -> Result:
    """Read one record.

    Raises:
        InputError: when the file is no record; the line names it.
    """
    try:
        return Result.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{file}: no result record: {_why(error)}") from error


def records_folder(file: Path) -> Path:
    """Return the results folder that a record lies in.

    Raises:
        InputError: when it lies elsewhere.
    """
    if file.resolve().parent.name != MEASURED:
        raise InputError(f"{file}: a record is read where it was written, in {MEASURED}/")
    return file.resolve().parent.parent


def load_results(folder: Path) -> Loaded:
    """Read all records of a results folder.

    Files that are no records, and all but one of the records of one identity, are left out and
    reported; the one that carries the name of its identity is preferred.

    Raises:
        InputError: when there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"no results folder '{folder}'; name another with --results")
    found: list[tuple[Path, Result]] = []
    problems: list[str] = []
    for file in sorted((folder / MEASURED).glob("*.json")):
        try:
            found.append((file, read_result(file)))
        except InputError as error:
            problems.append(str(error))
    results, repeated = _one_each(found)
    return Loaded(sorted(results, key=Result.file_name), problems + repeated)


def _one_each(found: list[tuple[Path, Result]]) -> tuple[list[Result], list[str]]:
    kept: dict[Identity, tuple[Path, Result]] = {}
    problems = []
    for file, result in sorted(found, key=lambda f: (f[0].name != f[1].file_name(), f[0].name)):
        first, _ = kept.setdefault(result.identity(), (file, result))
        if first != file:
            problems.append(f"{file}: left out, the same run as {first.name}; delete one of them")
    return [result for _, result in kept.values()], problems


def _why(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"{first['msg']}; delete it and run again"
    if first["loc"][:1] == ("figures",) and first["loc"][-1] == "[key]":
        return f"unknown figure '{first['input']}'; known: {', '.join(FIGURES)}"
    return validation_line(error, list(Result.model_fields), "field")


def _json(value: Any, depth: int = 0) -> str:
    """Indent mappings but keep each list on one line: curves are long, and diffs are read."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    pad = "  " * (depth + 1)
    items = (f"{pad}{json.dumps(k)}: {_json(v, depth + 1)}" for k, v in value.items())
    return "{\n" + ",\n".join(items) + "\n" + "  " * depth + "}"
