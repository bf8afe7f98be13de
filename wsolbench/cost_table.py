"""What rows cost: size, operations, speed and memory, by machine and precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from wsolbench.columns import control_text, precision_text
from wsolbench.ranking import full_data, length_text
from wsolbench.results import Environment, Inference, Result

#: cell of what was not measured
_UNKNOWN = "-"
_GIB = 2**30
#: columns of text; the others hold numbers
TEXTS = ("dataset", "regime", "method", "backbone", "length", "precision", "machine")


@dataclass(frozen=True)
class Costs:
    """Costs of the records of one row; None where nothing was measured.

    Attributes:
        parameters, macs: of the whole model, and to localize one image.
        train_images_per_second, inference_images_per_second: median over the records.
        train_memory_bytes, inference_memory_bytes: the most that any record has.
    """

    parameters: int
    macs: int | None
    train_images_per_second: float | None
    train_memory_bytes: int | None
    inference_images_per_second: float | None
    inference_memory_bytes: int | None


def costs(records: Sequence[Result]) -> Costs:
    """Sum up records of one recipe and precision, those of the first one's machine.

    How fast they localize counts where it was measured on the machine of the training.
    """
    here = machine(records[0].environment)
    records = [r for r in records if machine(r.environment) == here]
    trained = [r.cost for r in records if r.recipe.trained]
    found = [i for i in map(_inference, records) if i is not None]
    return Costs(
        parameters=records[0].cost.parameters,
        macs=records[0].cost.macs,
        train_images_per_second=_median([c.train_images_per_second for c in trained]),
        train_memory_bytes=max((c.peak_memory_bytes for c in trained), default=None),
        inference_images_per_second=_median([i.images_per_second for i in found]),
        inference_memory_bytes=max((i.peak_memory_bytes for i in found), default=None),
    )


def cost_rows(
    results: Iterable[Result], titles: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells, a row for each dataset, recipe, precision and machine.

    Args:
        results: measured records, in any order; protocols of one training fall together. Trainings
            on few images a class are left out: they take the same steps as those on all.
        titles: name of a method to its title.
    """
    rows: defaultdict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in full_data(results):
        rows[_key(result)].append(result)
    cells = [_cells(rows[key], titles) for key in sorted(rows)]
    return list(cells[0]) if cells else [], [list(row.values()) for row in cells]


def machine(environment: Environment | Inference) -> str:
    """Name the processor or accelerator and what on it decides the speed."""
    words = [environment.device]
    if environment.device_type == "cpu":
        words.append(f"{environment.threads} thread{'s' if environment.threads > 1 else ''}")
    return ", ".join([*words, "compiled"] if environment.compiled else words)


def _key(result: Result) -> tuple[str, ...]:
    recipe, weights = result.recipe, result.weights
    shown = (result.dataset.title, recipe.name, recipe.method, recipe.backbone, recipe.precision)
    hidden = (result.recipe_key, result.dataset.fingerprint, str(weights and weights.sha256))
    return *shown, machine(result.environment), *hidden


def _cells(rows: Sequence[Result], titles: Mapping[str, str]) -> dict[str, str]:
    first, cost = rows[0], costs(rows)
    recipe = first.recipe
    return {
        "dataset": first.dataset.title,
        "regime": recipe.name,
        "method": control_text(first, titles),
        "backbone": recipe.backbone,
        "length": length_text(recipe) if recipe.trained else _UNKNOWN,
        "precision": precision_text(recipe.precision),
        "machine": machine(first.environment),
        "pixels": str(recipe.image_size),
        "parameters, M": _number(cost.parameters, 1e6, 2),
        "MACs, G": _number(cost.macs, 1e9, 3),
        "batch": str(recipe.batch_size) if recipe.trained else _UNKNOWN,
        "training, images/s": _number(cost.train_images_per_second, 1, 1),
        "training, GiB": _number(cost.train_memory_bytes, _GIB, 2),
        "inference, images/s": _number(cost.inference_images_per_second, 1, 1),
        "inference, GiB": _number(cost.inference_memory_bytes, _GIB, 2),
    }


def _inference(result: Result) -> Inference | None:
    found = result.cost.inference
    return found if found and machine(found) == machine(result.environment) else None


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _number(value: float | None, unit: float, decimals: int) -> str:
    return _UNKNOWN if value is None else f"{value / unit:.{decimals}f}"
