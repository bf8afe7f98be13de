"""Records of a run: what is written of it, and whether what was written still stands."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wsolbench import environment, processes
from wsolbench.cost import count_parameters
from wsolbench.engine.checkpoint import Progress, checkpoints
from wsolbench.engine.weights import state_digest
from wsolbench.errors import InputError
from wsolbench.metrics.derived import figures_without
from wsolbench.protocol import Protocol
from wsolbench.provenance import pretraining, saw_imagenet, supervision, weights_stamp
from wsolbench.recipe import Recipe
from wsolbench.results import (
    MEASURED,
    Clean,
    Cost,
    DatasetStamp,
    Inference,
    InputStamp,
    ProtocolStamp,
    Result,
    read_examples,
    read_result,
    read_table,
    record_name,
)
from wsolbench.saved_run import CARD
from wsolbench.scoring import Outcome

if TYPE_CHECKING:
    from wsolbench.run import Run


def standing_records(run: Run) -> list[Result]:
    """The records of a run, if all are there, whole and as this code would make them.

    They are not when a protocol's version, the weights, the commit or whether it is compiled has
    changed since, or a training has gone on, the run's own or one that it builds on.
    """
    return processes.of_first(lambda: _standing(run))


def _standing(run: Run) -> list[Result]:
    try:
        found = [_read(run, protocol) for protocol in run.protocols]
    except InputError:  # missing or damaged
        return []
    pairs = zip(found, run.protocols, strict=True)
    return found if all(_is_current(run, result, protocol) for result, protocol in pairs) else []


def _read(run: Run, protocol: Protocol) -> Result:
    name = record_name(run.recipe, protocol.name, run.fingerprint, run.device.type)
    result = read_result(run.places.results / MEASURED / name)
    if result.table is not None:
        read_table(result, run.places.results)
    if result.examples is not None:
        read_examples(result, run.places.results)
    return result


def _is_current(run: Run, result: Result, protocol: Protocol) -> bool:
    trained = max((file.stat().st_mtime for file in _trainings(run)), default=0.0)
    inference = result.cost.inference
    return (
        result.protocol.version == protocol.version
        and result.weights == weights_stamp(run.recipe, run.places)
        and result.scoring_commit == environment.code_state()[0]
        and (inference is None or inference.compiled == run.compiled)
        and trained <= result.created.timestamp() <= _handed_on(run)
    )


def _handed_on(run: Run) -> float:
    """When the run was last written for others, which comes after its records."""
    card = run.folder / CARD
    if not run.folder.is_dir():  # only records are here
        return math.inf
    return card.stat().st_mtime if card.is_file() else 0.0


def _trainings(run: Run) -> list[Path]:
    """Checkpoints of a run's training and of those that it builds on."""
    upon = (other for other in (run.source, run.targets, run.classifier) if other is not None)
    return [*checkpoints(run.checkpoint), *(file for other in upon for file in _trainings(other))]


def input_stamp(run: Run, role: str, of: Recipe, progress: Progress) -> InputStamp:
    """What a record says of a run that it builds on.

    Args:
        run: the one that is built on, trained.
        role: the field of ``of`` that names it.
        of: the recipe that builds on it.
        progress: of its training.
    """
    return InputStamp(
        role=role,
        of=of.method,
        method=run.recipe.method,
        run=run.folder.name,
        recipe_key=run.recipe.key(),
        seed=run.recipe.seed,
        supervision=supervision(run.recipe),
        pretraining=pretraining(run.recipe, run.places),
        commit=progress.origin["environment"]["commit"],
        sha256=state_digest(run.method),
    )


def make_record(
    run: Run, protocol: Protocol, outcome: Outcome, progress: Progress, cost: Cost
) -> Result:
    """The record of a run that was trained and scored under a protocol."""
    scores = outcome.scores
    return Result(
        recipe=run.recipe,
        recipe_key=run.recipe.key(),
        protocol=ProtocolStamp(name=protocol.name, version=protocol.version, title=protocol.title),
        figures=scores.figures,
        oracle=tuple(name for name in protocol.oracle if name in scores.figures),
        clean=_clean(run, protocol, outcome),
        threshold=scores.threshold,
        threshold_source="none" if scores.threshold is None else protocol.selection.kind,
        percentile=outcome.percentile,
        curves={name: tuple(values) for name, values in scores.curves.items()},
        dead_maps=scores.dead_maps,
        dataset=_dataset_stamp(run),
        cost=cost,
        environment=progress.origin["environment"],
        scoring_commit=environment.code_state()[0],
        iterations=run.iterations,
        history=tuple(progress.history),
        weights=progress.origin["weights"],
        pretraining=pretraining(run.recipe, run.places),
        supervision=supervision(run.recipe),
        inputs=run.inputs,
        command=run.command,
        created=datetime.now(UTC),
    )


def make_cost(run: Run, progress: Progress, score_seconds: float, inference: Inference) -> Cost:
    """What training and scoring took."""
    parameters, trainable = count_parameters(run.answering)
    rate = progress.images / progress.seconds if progress.seconds else 0.0
    return Cost(
        parameters=parameters,
        trainable_parameters=trainable,
        macs=run.macs,
        train_seconds=progress.seconds,
        score_seconds=score_seconds,
        train_images_per_second=rate,
        peak_memory_bytes=progress.peak_memory,
        inference=inference,
    )


def _clean(run: Run, protocol: Protocol, outcome: Outcome) -> Clean | None:
    seen = run.dataset.in_imagenet() if saw_imagenet(run.recipe) else frozenset()
    if outcome.table is None or not seen:
        return None
    scores = outcome.scores
    asked = [figure for figure in protocol.figures if figure in scores.figures]
    figures = figures_without(outcome.table, asked, scores.threshold, seen)
    return Clean(left_out=len(seen), figures=figures)


def _dataset_stamp(run: Run) -> DatasetStamp:
    return DatasetStamp(
        name=run.recipe.dataset,
        title=run.dataset.title,
        classes=run.dataset.num_classes,
        train=len(run.splits["train"]),
        val=len(run.splits["val"]),
        test=len(run.splits["test"]),
        fingerprint=run.fingerprint,
        holdout=run.dataset.holdout_name(),
    )
