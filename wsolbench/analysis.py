"""What the tables of runs say beside their figures, and whether one method beats another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from wsolbench.columns import FIGURE_TITLES, Titles, interval_text, result_text, title_of
from wsolbench.errors import InputError
from wsolbench.metrics import derived
from wsolbench.metrics import functional as F
from wsolbench.metrics.image_table import ImageTable
from wsolbench.metrics.resampling import Interval, difference_interval, interval, paired_p
from wsolbench.protocol import FIGURES, Figure
from wsolbench.ranking import RANKED_BY, Row, groups
from wsolbench.results import (
    Identity,
    Result,
    load_results,
    read_result,
    read_table,
    records_folder,
)
from wsolbench.tables import Intervals

_SURFACE_IOUS = tuple(i / 10 for i in range(1, 10))
_SURFACE_COLUMNS = 10
_CLASSES = 5
_LEVEL = 0.05
#: what is to be said of a comparison in which a method has no other seed
ONE_SEED = "One seed tells nothing of others: this speaks of these runs."


def row_intervals(results: Iterable[Result], folder: Path) -> tuple[Intervals, list[str]]:
    """Return the intervals of the ranked figures of each row whose runs all have tables.

    Returns:
        The intervals, and one line for each table that cannot be used.
    """
    found: dict[tuple[Identity, ...], dict[Figure, Interval]] = {}
    problems: list[str] = []
    for group in groups(results):
        for row in group.rows:
            runs = _read_all(row, folder, problems)
            if runs is None:
                continue
            for figure in group.rankings:
                values = _values(runs, figure)
                if values is not None:
                    found.setdefault(row.identities, {})[figure] = interval(values)
    return found, list(dict.fromkeys(problems))


def _read_all(row: Row, folder: Path, problems: list[str]) -> _Runs | None:
    """The tables of all runs of a row, where each has one; what is wrong with any is a problem."""
    kept = Row(tuple(result for result in row.results if result.table))
    if not kept.results:
        return None
    try:
        runs = _Runs.read(kept, folder)
    except InputError as error:
        problems.append(str(error))
        return None
    return runs if len(kept.results) == len(row.results) else None


def analyse(file: Path, titles: Titles) -> str:
    """Say what the table of a record's images tells.

    Raises:
        InputError: when the file is no record of a results folder, or has no table that fits it.
    """
    result = read_result(file)
    runs = _Runs.read(Row((result,)), records_folder(file))
    table, index = runs.tables[0], shown_level(result, runs.tables[0])
    parts = (
        f"{_name(runs, titles)}, {len(table)} images",
        _figures(runs),
        "95% intervals: bootstrap over the images, thresholds as chosen.",
        _located(result, table, index),
        _surface(table),
        _sizes(table, runs),
        _classes(table, runs),
        _kinds(table, index),
    )
    return "\n\n".join(part for part in parts if part)


def compare(first: Path, second: Path, titles: Titles) -> str:
    """Say how two records' rows differ, all their seeds together.

    Raises:
        InputError: when a file is no record of a results folder, a table is missing or does not fit
            its record, both are of one row, or they differ in their images or protocol.
    """
    a, b = (_Runs.read(_row_of(file), records_folder(file)) for file in (first, second))
    if a.row.identities == b.row.identities:
        raise InputError(f"{first.name} and {second.name} are seeds of one row; compare two rows")
    _check_comparable(a, b, f"{first.name} and {second.name}")
    names = [_name(runs, titles) for runs in (a, b)]
    compared = _in_common(a, b)
    if not compared:
        raise InputError(f"{first.name} and {second.name} have no figure in common")
    oracle = {*a.row.first.oracle, *b.row.first.oracle}
    rows = [_compared(title_of(f, f in oracle), *values) for f, values in compared.items()]
    columns = ["figure", "first", "second", "first - second", "95% interval", "p"]
    ranked = next((figure for figure in RANKED_BY if figure in compared), next(iter(compared)))
    parts = (
        f"first:  {names[0]}\nsecond: {names[1]}\n{len(a.tables[0])} images",
        tabulate(rows, columns, "simple", disable_numparse=True),
        "Intervals: bootstrap over the images, the same for both, and over the seeds of each;\n"
        "p: random signs of the images' differences, for these runs as they are.",
        _verdict(ranked, *compared[ranked]),
    )
    return "\n\n".join(parts)


def _check_comparable(a: _Runs, b: _Runs, names: str) -> None:
    first, second = a.row.first, b.row.first
    alike = first.dataset.fingerprint == second.dataset.fingerprint
    if not alike or a.tables[0].image_id != b.tables[0].image_id:
        raise InputError(f"{names} are of other images; nothing to compare")
    if first.protocol != second.protocol:
        raise InputError(f"{names} were scored under other protocols; nothing to compare")


class Lead(NamedTuple):
    """How far one row is ahead of another.

    Attributes:
        points: difference of the means in percent points.
        interval: of the difference.
        shown: whether it is shown to be ahead at all, at the 5% level.
        seeds: how many of each row's this is of: those with a table.
    """

    points: float
    interval: Interval
    shown: bool
    seeds: tuple[int, int]


def lead(first: Row, second: Row, figure: Figure, folder: Path) -> Lead | None:
    """Say how far a row is ahead; None where the tables of both do not tell."""
    rows = [Row(tuple(r for r in row.results if r.table)) for row in (first, second)]
    if not all(row.results for row in rows):
        return None
    try:
        runs = [_Runs.read(row, folder) for row in rows]
    except InputError:
        return None
    a, b = (_values(of, figure) for of in runs)
    if a is None or b is None or runs[0].tables[0].image_id != runs[1].tables[0].image_id:
        return None
    points = 100 * float(a.mean() - b.mean())
    return Lead(points, difference_interval(a, b), _apart(a, b), (len(a), len(b)))


def read_tables(row: Row, folder: Path) -> Sequence[ImageTable]:
    """Read the tables of a row's seeds.

    Raises:
        InputError: when one is missing or does not fit, or they are of other images.
    """
    return _Runs.read(row, folder).tables


def shown_level(result: Result, table: ImageTable) -> int:
    """Number of the threshold at which a run's boxes are shown: its own, else the best one."""
    if result.threshold is None:
        return derived.best_level(table)
    return derived.level(table, result.threshold)


# ---------------------------------------------------------------------------------------- reading


class _Runs:
    """The records of a row and the tables of their images."""

    def __init__(self, row: Row, tables: Sequence[ImageTable]) -> None:
        self.row, self.tables = row, tables

    @classmethod
    def read(cls, row: Row, folder: Path) -> _Runs:
        tables = [read_table(result, folder) for result in row.results]
        if len({table.image_id for table in tables}) > 1:
            names = " and ".join(result.file_name() for result in row.results)
            raise InputError(f"{names}: seeds of one row, but of other images; run them again")
        return cls(row, tables)


def _row_of(file: Path) -> Row:
    """The row that a record stands in: all seeds with a table."""
    own = read_result(file)
    results, _ = load_results(records_folder(file))
    rows = (r for g in groups(results) for r in g.rows if own.identity() in r.identities)
    row = next(rows, Row((own,)))  # alone, where the file's name is none of a record
    kept = tuple(result for result in row.results if result.table is not None)
    return Row(kept or (own,))


def _values(runs: _Runs, figure: Figure) -> F.Floats | None:
    """How right (S, N) each run is at each image; None where a run lacks the figure."""
    values = []
    for result, table in zip(runs.row.results, runs.tables, strict=True):
        right = derived.hits(table, figure, result.threshold)
        if right is None or figure not in result.figures:
            return None
        values.append(right.mean(axis=0))
    return np.stack(values)


def _in_common(a: _Runs, b: _Runs) -> dict[Figure, tuple[F.Floats, F.Floats]]:
    """Per-image values of the figures that both rows have."""
    known = sorted({f for runs in (a, b) for r in runs.row.results for f in r.figures}, key=_place)
    pairs = {figure: (_values(a, figure), _values(b, figure)) for figure in known}
    return {f: (x, y) for f, (x, y) in pairs.items() if x is not None and y is not None}


def _place(figure: Figure) -> int:
    return FIGURES.index(figure)


# ------------------------------------------------------------------------------------------- text


def _name(runs: _Runs, titles: Titles) -> str:
    first = runs.row.first
    seeds = ", ".join(map(str, runs.row.seeds))
    method = result_text(first, titles)
    plural = "s" if len(runs.row.seeds) > 1 else ""
    of = f"{first.dataset.name}, protocol {first.protocol.name}"
    draws = ", ".join(map(str, runs.row.draws))
    shots = first.recipe.shots
    images = "" if shots is None else f", {shots} images a class, draws {draws}"
    return f"{method} (recipe {first.recipe_key}, seed{plural} {seeds}{images}) on {of}"


def _figures(runs: _Runs) -> str:
    result, rows = runs.row.first, []
    for figure in result.figures:
        values = _values(runs, figure)
        title = title_of(figure, figure in result.oracle)
        spread = "-" if values is None else interval_text(interval(values))
        rows.append([title, f"{result.figures[figure]:.2f}", spread])
    return _table(["figure", "percent", "95% interval"], rows)


def _located(result: Result, table: ImageTable, index: int) -> str:
    source = "best here, oracle" if result.threshold is None else result.threshold_source
    rows = [
        [
            f"mean IoU at threshold {table.thresholds[index]:.3f} ({source})",
            f"{derived.mean_iou(table, index):.2f}",
        ],
        ["area under the surface of accuracy over threshold and IoU", f"{derived.area(table):.2f}"],
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _surface(table: ImageTable) -> str:
    count = len(table.thresholds)
    at = np.unique(np.linspace(0, count, _SURFACE_COLUMNS, endpoint=False, dtype=int))
    accuracy = derived.surface(table, _SURFACE_IOUS)[:, at]
    columns = ["IoU \\ threshold", *(f"{t:.2f}" for t in table.thresholds[at])]
    rows = [
        [f"{iou:.1f}", *(f"{value:.1f}" for value in row)]
        for iou, row in zip(_SURFACE_IOUS, accuracy, strict=True)
    ]
    return "accuracy (%) over threshold and IoU\n" + _table(columns, rows)


def _main(runs: _Runs) -> tuple[Figure, F.Floats] | None:
    for figure in RANKED_BY:
        values = _values(runs, figure)
        if values is not None:
            return figure, values[0]
    return None


def _sizes(table: ImageTable, runs: _Runs) -> str:
    main = _main(runs)
    if main is None:
        return ""
    figure, values = main
    sizes, rows, lower = derived.sizes(table), [], 0.0
    for number, upper in enumerate(derived.SIZES):
        members = values[sizes == number]
        right = f"{100 * members.mean():.2f}" if len(members) else "-"
        rows.append([f"{100 * lower:.0f} to {100 * upper:.0f}", str(len(members)), right])
        lower = upper
    title = FIGURE_TITLES[figure]
    return _table(["largest object, % of the frame", "images", title], rows)


def _classes(table: ImageTable, runs: _Runs) -> str:
    main = _main(runs)
    if main is None:
        return ""
    figure, values = main
    by_class = derived.by_class(table, values)
    lowest = sorted(by_class, key=lambda entry: entry[2])[:_CLASSES]
    rows = [[str(label), str(count), f"{percent:.2f}"] for label, count, percent in lowest]
    mean = np.mean([percent for _, _, percent in by_class])
    rows.append([f"mean of {len(by_class)}", str(len(table)), f"{mean:.2f}"])
    return _table(["class, the lowest first", "images", FIGURE_TITLES[figure]], rows)


def _kinds(table: ImageTable, index: int) -> str:
    counts = np.bincount(derived.kinds(table, index), minlength=len(derived.KINDS))
    rows = [
        [kind, str(count), f"{100 * count / len(table):.2f}"]
        for kind, count in zip(derived.KINDS, counts.tolist(), strict=True)
    ]
    return _table([f"answer at threshold {table.thresholds[index]:.3f}", "images", "percent"], rows)


def _compared(title: str, a: F.Floats, b: F.Floats) -> list[str]:
    first, second = 100 * a.mean(), 100 * b.mean()
    apart = interval_text(difference_interval(a, b))
    p = paired_p(a.mean(axis=0) - b.mean(axis=0))
    means = [f"{first:.2f}", f"{second:.2f}", f"{first - second:+.2f}"]
    return [title, *means, apart, f"{p:.4f}"]


def _verdict(figure: Figure, a: F.Floats, b: F.Floats) -> str:
    low, _ = difference_interval(a, b)
    title = FIGURE_TITLES[figure]
    if not _apart(a, b):
        said = f"Neither is shown to be ahead by {title} (5% level)."
    else:
        said = f"The {'first' if low > 0 else 'second'} is ahead by {title} (5% level)."
    if min(len(a), len(b)) > 1:
        return said
    return f"{said} {ONE_SEED}"


def _apart(a: F.Floats, b: F.Floats) -> bool:
    """Both the paired test and the interval that knows of seeds must agree."""
    low, high = difference_interval(a, b)
    return paired_p(a.mean(axis=0) - b.mean(axis=0)) < _LEVEL and not low <= 0 <= high


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["left"] + ["right"] * (len(columns) - 1)
    return tabulate(rows, columns, "simple", disable_numparse=True, colalign=align)
