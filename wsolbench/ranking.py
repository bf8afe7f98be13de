"""Which runs may be compared, and in which order.

A group holds the runs of one dataset, regime and protocol; a row of it the seeds of one recipe on
one kind of device in one precision, from the same weights. Nothing is averaged across rows, and
nothing is ranked across groups.

A method that trains nothing has no schedule to agree with others': it stands in every group that
shares its data, protocol, hold-out and image size. So does one that was trained on boxes, of which
there are too few for others' epochs: a bar that is no weakly supervised method's. It and controls
are shown beside the others without a rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from wsolbench.protocol import FIGURES, Figure
from wsolbench.recipe import RECIPE_NAMES, Recipe
from wsolbench.results import Identity, Result

#: the first of these that a group has decides its order
RANKED_BY: tuple[Figure, ...] = ("gt_known_loc", "max_box_acc_v2", "max_box_acc", "pxap")
#: has a ranking of its own where another one decides the order
ALSO_RANKED_BY: Figure = "max_box_acc_v2"
#: decimals that tables print; means that print alike share a rank
DECIMALS = 2
#: recipe fields that must agree within a group of the default regime
_CONDITIONS = {
    "shots",
    "epochs",
    "iterations",
    "batch_size",
    "drop_last",
    "holdout",
    "image_size",
    "resize",
    "flip",
    "pretrained",
    "schedule",
    "checkpoint",
}
#: those of them that matter where nothing is trained
_WITHOUT_TRAINING = {"holdout", "image_size"}
#: those that must agree in the authors' regimes too
_ALWAYS = {"shots", "iterations"}


@dataclass(frozen=True)
class Row:
    """Records that differ in nothing but seed and draw, in the order of these.

    Attributes:
        rank: 1 for the best of the group, equal for ties; None without a figure to rank by, for
            controls, and for what was trained on boxes.
    """

    results: tuple[Result, ...]
    rank: int | None = None

    @property
    def first(self) -> Result:
        """The record of the lowest seed, for all that the seeds share."""
        return self.results[0]

    @classmethod
    def of(cls, results: Iterable[Result]) -> Row:
        """Put records of one row in their order."""
        return cls(tuple(sorted(results, key=lambda r: (r.recipe.seed, r.recipe.draw))))

    @property
    def identities(self) -> tuple[Identity, ...]:
        """What makes each record one experiment."""
        return tuple(r.identity() for r in self.results)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds in increasing order."""
        return tuple(sorted({r.recipe.seed for r in self.results}))

    @property
    def draws(self) -> tuple[int, ...]:
        """Draws of training images in increasing order."""
        return tuple(sorted({r.recipe.draw for r in self.results}))

    def mean(self, figure: Figure) -> float | None:
        """Mean over the seeds in percent; None unless every seed has the figure."""
        values = self._values(figure)
        return fmean(values) if values else None

    def std(self, figure: Figure) -> float | None:
        """Sample standard deviation over the seeds in percent; None for fewer than two."""
        values = self._values(figure)
        return stdev(values) if len(values) > 1 else None

    def threshold(self) -> float | None:
        """Mean threshold over the seeds; None unless every seed has one."""
        values = [r.threshold for r in self.results if r.threshold is not None]
        return fmean(values) if len(values) == len(self.results) else None

    @property
    def dead_maps(self) -> float:
        """Mean over the seeds of the maps that are constant or not finite."""
        return fmean(r.dead_maps for r in self.results)

    def _values(self, figure: Figure) -> list[float]:
        values = [r.figures[figure] for r in self.results if figure in r.figures]
        return values if len(values) == len(self.results) else []


@dataclass(frozen=True)
class Group:
    """Rows that may be compared, best first."""

    rows: tuple[Row, ...]

    @property
    def first(self) -> Result:
        """A record of the group, for all that its records share; one with its schedule if any."""
        return next(
            (row.first for row in self.rows if not _stands_anywhere(row.first)), self.rows[0].first
        )

    @property
    def results(self) -> list[Result]:
        """All records of the group."""
        return [result for row in self.rows for result in row.results]

    @property
    def figures(self) -> list[Figure]:
        """Figures that some record has, in the order of all tables."""
        held = {f for r in self.results for f in r.figures}
        return sorted(held, key=FIGURES.index)

    @property
    def oracle(self) -> frozenset[Figure]:
        """Figures that were chosen on the evaluated split."""
        return frozenset(f for r in self.results for f in r.oracle)

    @property
    def ranked_by(self) -> Figure | None:
        """Figure that decides the order."""
        return _ranking_figure(self.rows)

    @property
    def rankings(self) -> list[Figure]:
        """Figures that rows are ranked by, that of the order first."""
        first = [] if self.ranked_by is None else [self.ranked_by]
        also = {ALSO_RANKED_BY} & set(self.figures) - set(first)
        return [*first, *also]


def full_data(results: Iterable[Result]) -> list[Result]:
    """Leave out trainings on few images a class, which :mod:`wsolbench.few_shot` shows."""
    return [result for result in results if result.recipe.shots is None]


def distinctions(of: Sequence[Group]) -> list[str]:
    """What tells each group from others of its dataset, regime and protocol; mostly nothing."""
    facts = [_facts(group.first) for group in of]
    names = [(g.first.dataset.name, g.first.recipe.name, g.first.protocol.name) for g in of]
    return [
        ", ".join(v for k, v in own.items() if any(other[k] != v for other in alike))
        for own, name in zip(facts, names, strict=True)
        for alike in [[f for f, n in zip(facts, names, strict=True) if n == name]]
    ]


def _facts(result: Result) -> dict[str, str]:
    """What may part groups, as text."""
    recipe = result.recipe.training
    return {
        "length": length_text(recipe),
        **{
            name: f"{name.replace('_', ' ')} {getattr(recipe, name)}"
            for name in sorted(_CONDITIONS - {"epochs", "iterations", "schedule", "shots"})
        },
        "schedule": f"{recipe.schedule.name} schedule",
        "dataset": f"fingerprint {result.dataset.fingerprint}",
        "protocol": f"version {result.protocol.version} of the protocol",
    }


def length_text(recipe: Recipe) -> str:
    """How long a recipe trains."""
    cut = f"{recipe.iterations} iterations"
    return f"{recipe.epochs} epochs" if recipe.iterations is None else cut


def groups(results: Iterable[Result]) -> list[Group]:
    """Sort records into groups and rows; the order of ``results`` does not matter."""
    everywhere: list[Result] = []
    sorted_in: defaultdict[tuple[Any, ...], list[Result]] = defaultdict(list)
    for result in results:
        if _stands_anywhere(result):
            everywhere.append(result)
        else:
            sorted_in[comparable(result)].append(result)
    hosts = {key: _group_key(members[0], _WITHOUT_TRAINING) for key, members in sorted_in.items()}
    for result in everywhere:
        own = _group_key(result, _WITHOUT_TRAINING)
        for key in [key for key, host in hosts.items() if host == own] or [own]:
            sorted_in[key].append(result)
    return [_group(members) for _, members in sorted(sorted_in.items(), key=_in_order)]


def _in_order(item: tuple[tuple[Any, ...], list[Result]]) -> tuple[Any, ...]:
    """By what groups are of; whole recipes before those that were cut to some iterations."""
    (*names, conditions), members = item
    cut = any(result.recipe.training.iterations is not None for result in members)
    return *names, cut, conditions


def _trains_nothing(result: Result) -> bool:
    """Whether the method trains nothing, on few images or many, nor anybody for it."""
    training = result.recipe.training
    return not training.trained and training.weights is None and training.shots is None


def _stands_anywhere(result: Result) -> bool:
    """Whether the run has no schedule to agree with others'."""
    return _trains_nothing(result) or result.saw_boxes


def comparable(result: Result) -> tuple[Any, ...]:
    """What must be the same in two trained runs that are compared."""
    return _group_key(result, _CONDITIONS)


def _group_key(result: Result, fields: set[str]) -> tuple[Any, ...]:
    recipe, data, protocol = result.recipe, result.dataset, result.protocol
    shared = fields if recipe.name == "default" else fields & _ALWAYS
    conditions = recipe.training.model_dump_json(include=shared)
    regime = RECIPE_NAMES.index(recipe.name)
    return data.name, data.fingerprint, regime, protocol.name, protocol.version, conditions


def _group(members: Iterable[Result]) -> Group:
    rows: defaultdict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in members:
        rows[row_key(result)].append(result)
    return Group(_ranked([Row.of(seeds) for _, seeds in sorted(rows.items())]))


def row_key(result: Result) -> tuple[str, ...]:
    """What must be the same in two runs of one row: method, backbone, recipe and how it ran."""
    weights = result.weights
    return (
        result.recipe.method,
        result.recipe.backbone,
        result.recipe_key,
        result.environment.device_type,
        result.recipe.precision,
        f"{weights.name} {weights.sha256}" if weights else "",
    )


def _ranking_figure(rows: Sequence[Row]) -> Figure | None:
    return next((f for f in RANKED_BY if any(row.mean(f) is not None for row in rows)), None)


def _ranked(rows: list[Row]) -> tuple[Row, ...]:
    figure = _ranking_figure(rows)
    places = [None] * len(rows) if figure is None else ranks(rows, figure)
    ranked = [Row(row.results, place) for row, place in zip(rows, places, strict=True)]
    return tuple(sorted(ranked, key=lambda row: (row.rank is None, row.rank)))


def ranks(rows: Sequence[Row], figure: Figure) -> list[int | None]:
    """Rank of each row in a figure, see :class:`Row`."""
    means = [None if _out_of_rank(row) else row.mean(figure) for row in rows]
    scores = [None if mean is None else round(mean, DECIMALS) for mean in means]
    return [_rank(score, scores) for score in scores]


def _out_of_rank(row: Row) -> bool:
    return row.first.recipe.train_labels != "official" or row.first.saw_boxes


def _rank(score: float | None, scores: list[float | None]) -> int | None:
    if score is None:
        return None
    return 1 + sum(other is not None and other > score for other in scores)
