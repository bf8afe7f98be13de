"""What trainings on few images a class reached: views of records, like the tables.

A chart holds what may be compared: runs of one dataset, regime and protocol, of the same length and
under the same conditions at every number of images a class. A curve of it is one method's recipe,
a point of a curve the draws and seeds of one number of images. Full trainings enter as the last
point of a curve, and nothing here is ranked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import pandas as pd
from tabulate import tabulate

from wsolbench.columns import (
    FIGURE_TITLES,
    Titles,
    commit_of,
    control_text,
    device_of,
    size_of,
    title_of,
)
from wsolbench.errors import one_line
from wsolbench.labels import COLUMNS, result_labels
from wsolbench.protocol import Figure
from wsolbench.ranking import Row, comparable, row_key
from wsolbench.reported import read_table
from wsolbench.results import Result
from wsolbench.tables import (
    REGIMES,
    UNDEFINED,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
    spread,
)

#: figures of the tables; the first of them that a chart has is the one to plot
FIGURES_SHOWN: tuple[Figure, ...] = (
    "gt_known_loc",
    "top1_loc",
    "max_box_acc_v2",
    "pxap",
    "top1_cls",
)
#: how all images of a class are called
ALL = "all"
_ONE_RUN = re.compile(r"\s--(?:set (?:shots|draw)=\d+|seed[=\s]\s*[\d,]+)")


@dataclass(frozen=True)
class Point:
    """Runs on one number of images a class.

    Attributes:
        shots: images a class; None for all.
        row: one record a draw and seed.
    """

    shots: int | None
    row: Row

    @property
    def label(self) -> str:
        """The number as tables and axes show it."""
        return label_of(self.shots)


@dataclass(frozen=True)
class Curve:
    """One method's recipe over growing numbers of images; ``points`` in their order, all last."""

    points: tuple[Point, ...]

    @property
    def first(self) -> Result:
        """A record, for all that they share."""
        return self.points[0].row.first


@dataclass(frozen=True)
class Chart:
    """Curves that may stand in one figure, by method."""

    curves: tuple[Curve, ...]

    @property
    def first(self) -> Result:
        """A record, for all that they share."""
        return self.curves[0].first

    @property
    def results(self) -> list[Result]:
        """All records of the chart."""
        return [r for curve in self.curves for point in curve.points for r in point.row.results]

    @property
    def shots(self) -> list[int | None]:
        """Numbers of images a class that some curve has, in their order, all last."""
        return ordered({point.shots for curve in self.curves for point in curve.points})

    @property
    def figures(self) -> list[Figure]:
        """Those of :data:`FIGURES_SHOWN` that some record has."""
        held = {f for r in self.results for f in r.figures}
        return [figure for figure in FIGURES_SHOWN if figure in held]

    def title(self, figure: Figure) -> str:
        """A figure's title, which says where it was chosen on the evaluated images."""
        return title_of(figure, figure in self.oracle)

    @property
    def oracle(self) -> frozenset[Figure]:
        """Figures that were chosen on the evaluated split."""
        return frozenset(f for r in self.results for f in r.oracle)

    @property
    def batch_sizes(self) -> list[int]:
        """Those of the trainings, which the authors' recipes have each their own of."""
        return sorted({r.recipe.batch_size for r in self.results})

    @property
    def iterations(self) -> list[int]:
        """Lengths of the trainings as their records state them: one, unless somebody erred."""
        return sorted({r.iterations for r in self.results if r.iterations is not None})


class Reference(NamedTuple):
    """A published curve, to stand apart from what was measured.

    Attributes:
        label: what a legend says.
        figure: which figure it is of.
        points: images a class (None for all) and percent.
        source: where it was printed.
    """

    label: str
    figure: Figure
    points: tuple[tuple[int | None, float], ...]
    source: str


def charts(results: Iterable[Result]) -> list[Chart]:
    """Sort records into charts; those of no curve with few images, or no figure, are left out."""
    found: defaultdict[tuple[object, ...], defaultdict[tuple[str, ...], list[Result]]]
    found = defaultdict(lambda: defaultdict(list))
    for result in results:
        whole = result.recipe.altered(shots=None, draw=0)
        alike = result.model_copy(update={"recipe": whole, "recipe_key": whole.key()})
        found[comparable(alike)][row_key(alike)].append(result)
    sorted_in = [_chart(curves.values()) for _, curves in sorted(found.items(), key=_first)]
    return [chart for chart in sorted_in if chart.curves and chart.figures]


def published_curves(dataset: str) -> list[Reference]:
    """Return the curves that papers published for a dataset, by its name in recipes."""
    table = read_table("few_shot.csv")
    rows = table[table["dataset"] == dataset]
    columns = ["method", "backbone", "figure", "source"]
    return [_reference(of) for _, of in rows.groupby(columns, sort=False)]


def frame(results: Iterable[Result], titles: Titles) -> pd.DataFrame:
    """Return one line for each figure of each point, with numbers as they are.

    ``shots`` is empty for all images; ``mean`` and ``std`` are percentages over the runs.
    """
    lines = [
        _line(number, point, figure, name)
        for number, chart in enumerate(charts(results), 1)
        for curve, name in zip(chart.curves, curve_labels(chart, titles), strict=True)
        for point in curve.points
        for figure in chart.figures
    ]
    return pd.DataFrame(lines, columns=_COLUMNS)


def csv(results: Iterable[Result], titles: Titles) -> str:
    """Return :func:`frame` as CSV."""
    return frame(results, titles).to_csv(index=False, lineterminator="\n")


def markdown(results: Iterable[Result], titles: Titles) -> str:
    """Return all charts as tables in Markdown, with their commands; "" where there are none."""
    return "\n\n".join(_markdown_chart(chart, titles) for chart in charts(results))


def latex(results: Iterable[Result], titles: Titles) -> str:
    """Return one table a chart in LaTeX, for the package booktabs; "" where there are none."""
    return "\n\n".join(_latex_chart(chart, titles) for chart in charts(results))


def terminal(results: Iterable[Result], titles: Titles) -> str:
    """Return all charts as plain tables; "" where there are none."""
    return "\n\n".join(_terminal_chart(chart, titles) for chart in charts(results))


# ----------------------------------------------------------------------------------------- sorting


def _first(item: tuple[tuple[object, ...], object]) -> str:
    return repr(item[0])


def ordered(shots: Iterable[int | None]) -> list[int | None]:
    """Sort numbers of images a class, all (None) last."""
    return sorted(shots, key=lambda k: (k is None, k or 0))


def _chart(members: Iterable[list[Result]]) -> Chart:
    curves = [_curve(m) for m in members if any(r.recipe.shots is not None for r in m)]
    return Chart(tuple(sorted(curves, key=lambda c: row_key(c.first)[:2])))


def _curve(members: Iterable[Result]) -> Curve:
    by_shots: defaultdict[int | None, list[Result]] = defaultdict(list)
    for result in members:
        by_shots[result.recipe.shots].append(result)
    return Curve(tuple(Point(k, Row.of(by_shots[k])) for k in ordered(by_shots)))


def _reference(rows: pd.DataFrame) -> Reference:
    first = {str(column): str(value) for column, value in rows.iloc[0].items()}
    label = f"{first['method']}, {first['backbone']}, as published"
    return Reference(label, cast(Figure, first["figure"]), _published_points(rows), first["source"])


def _published_points(rows: pd.DataFrame) -> tuple[tuple[int | None, float], ...]:
    pairs = zip(rows["shots"], rows["value"], strict=True)
    return tuple((None if k == ALL else int(k), float(value)) for k, value in pairs)


# ------------------------------------------------------------------------------------------ tables

_COLUMNS = [
    *("chart", "dataset", "fingerprint", "regime", "protocol", "protocol_version", "iterations"),
    *("batch_size", "method", "method_title", "backbone", "supervision", "train_labels"),
    *("recipe_key", "precision", "device_type", "shots", "images", "draws", "seeds", "figure"),
    *("oracle", "mean", "std"),
]


def _line(number: int, point: Point, figure: Figure, name: str) -> dict[str, object]:
    result = point.row.first
    recipe = result.recipe
    return {
        "chart": number,
        "dataset": result.dataset.name,
        "fingerprint": result.dataset.fingerprint,
        "regime": recipe.name,
        "protocol": result.protocol.name,
        "protocol_version": result.protocol.version,
        "iterations": result.iterations,
        "batch_size": recipe.batch_size,
        "method": recipe.method,
        "method_title": name,
        "backbone": recipe.backbone,
        "supervision": result.supervision,
        "train_labels": recipe.train_labels,
        "recipe_key": result.recipe_key,
        "precision": recipe.precision,
        "device_type": result.environment.device_type,
        "shots": "" if point.shots is None else point.shots,
        "images": result.dataset.train,
        "draws": len(point.row.draws),
        "seeds": len(point.row.seeds),
        "figure": figure,
        "oracle": figure in result.oracle,
        "mean": point.row.mean(figure),
        "std": point.row.std(figure),
    }


def _markdown_chart(chart: Chart, titles: Titles) -> str:
    columns, rows = _cells(chart, titles)
    parts = (
        f"### {markdown_text(_heading(chart))}",
        markdown_text(notes(chart)),
        markdown_table(columns, rows, numbers=columns[_TEXTS:]),
        "<details><summary>Commands that make these rows again</summary>",
        "\n".join(["```sh", *_commands(chart, titles), "```"]),
        "</details>",
    )
    return "\n\n".join(parts)


def _latex_chart(chart: Chart, titles: Titles) -> str:
    columns, rows = _cells(chart, titles)
    cells = [list(map(latex_text, row)) for row in rows]
    return latex_table(f"{_heading(chart)}. {notes(chart)}", columns, cells, _TEXTS)


def _terminal_chart(chart: Chart, titles: Titles) -> str:
    columns, rows = _cells(chart, titles, but=())
    kept = [0, 3, *range(_TEXTS, len(columns))]
    cells = [[row[i] for i in kept] for row in rows]
    align = ["left"] * 2 + ["right"] * (len(kept) - 2)
    table = tabulate(
        cells, [columns[i] for i in kept], "simple", disable_numparse=True, colalign=align
    )
    return f"{one_line(_heading(chart))}\n\n{table}"


#: columns of text before those of numbers
_TEXTS = 4


def _cells(
    chart: Chart, titles: Titles, but: Collection[str] = COLUMNS
) -> tuple[list[str], list[list[str]]]:
    columns = ["method", "backbone", "precision, device", "figure"]
    names = curve_labels(chart, titles, but)
    rows = [
        [name, *_made_of(curve), chart.title(figure), *_values(chart, curve, figure)]
        for figure in chart.figures
        for name, curve in zip(names, chart.curves, strict=True)
    ]
    return [*columns, *(label_of(k) for k in chart.shots)], rows


def curve_labels(chart: Chart, titles: Titles, but: Collection[str] = ()) -> list[str]:
    """Name each curve by as little as tells it from the others, see :mod:`wsolbench.labels`."""
    return result_labels([curve.first for curve in chart.curves], titles, but)


def _made_of(curve: Curve) -> tuple[str, str]:
    return curve.first.recipe.backbone, device_of(curve.first)


def label_of(shots: int | None) -> str:
    """A number of images a class as tables and axes show it."""
    return ALL if shots is None else str(shots)


def _values(chart: Chart, curve: Curve, figure: Figure) -> list[str]:
    rows = {point.shots: point.row for point in curve.points}
    return [_cell(rows.get(k), figure) for k in chart.shots]


def _cell(row: Row | None, figure: Figure) -> str:
    if row is None or row.mean(figure) is None:
        return UNDEFINED
    runs = len(row.results)
    return spread(row, figure=figure) + (f" ({runs})" if runs > 1 else "")


def _heading(chart: Chart) -> str:
    data, recipe = chart.first.dataset, chart.first.recipe
    return (
        f"{data.title} ({size_of(data)}): few training images a class, {steps_text(chart)}, "
        f"regime {recipe.name}, {chart.first.protocol.title}"
    )


def steps_text(chart: Chart) -> str:
    """How long each training is, whatever the number of images."""
    return f"{' or '.join(map(str, chart.iterations)) or 'equally many'} iterations"


def notes(chart: Chart) -> str:
    """Say what the curves of a chart share."""
    recipe, protocol = chart.first.recipe, chart.first.protocol
    batch = " or ".join(map(str, chart.batch_sizes))
    oracle = sorted(FIGURE_TITLES[f] for f in chart.figures if f in chart.oracle)
    held_out = (
        f"Thresholds come from the same {recipe.holdout} held-out images a class at every number."
        if chart.first.threshold_source == "held-out"
        else ""
    )
    sentences = (
        REGIMES[recipe.name],
        f"Columns: training images a class; {steps_text(chart)} of batch size {batch} "
        "at every number, so that nothing but the images differs.",
        held_out,
        "Mean ± sample standard deviation over draws of the images and over seeds, in brackets how "
        "many runs where there is more than one. Nothing here is ranked.",
        f"{', '.join(oracle)}: oracle, chosen on the test images." if oracle else "",
        f"Protocol {protocol.name}, version {protocol.version}; dataset {chart.first.dataset.name},"
        f" fingerprint {chart.first.dataset.fingerprint}.",
    )
    return " ".join(sentence for sentence in sentences if sentence)


# ---------------------------------------------------------------------------------------- commands


def _commands(chart: Chart, titles: Titles) -> list[str]:
    return [line for curve in chart.curves for line in _of_curve(curve, titles)]


def _of_curve(curve: Curve, titles: Titles) -> list[str]:
    """A comment that says whence a curve comes, and its commands."""
    title = control_text(curve.first, titles)
    commits = dict.fromkeys(
        commit_of(r.environment) for point in curve.points for r in point.row.results
    )
    comment = f"# {title}; {curve.first.recipe.backbone}; commit {', '.join(commits)}"
    return [one_line(comment), *curve_commands(curve)]


def curve_commands(curve: Curve) -> list[str]:
    """Commands that make all points again; points of as many runs share one."""
    together: defaultdict[tuple[str, int, tuple[int, ...]], list[str]] = defaultdict(list)
    for point in curve.points:
        for command in sorted({_shared(r) for r in point.row.results}):
            draws = 1 + max(point.row.draws)
            together[command, draws, point.row.seeds].append(point.label)
    return [_command(*key, labels) for key, labels in together.items()]


def _shared(result: Result) -> str:
    return _ONE_RUN.sub("", one_line(result.command))


def _command(command: str, draws: int, seeds: Sequence[int], labels: Sequence[str]) -> str:
    more = f" --draws {draws}" if draws > 1 else ""
    return f"{command} --shots {','.join(labels)}{more} --seed {','.join(map(str, seeds))}"
