"""The leaderboard page: what was measured here, and apart from it what papers published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wsolbench import few_shot
from wsolbench.analysis import row_intervals
from wsolbench.columns import FIGURE_TITLES, Titles
from wsolbench.cost_table import TEXTS, cost_rows
from wsolbench.files import write_text
from wsolbench.reported import read_table
from wsolbench.results import Result, load_results
from wsolbench.tables import NO_INTERVALS, UNDEFINED, Intervals, markdown, markdown_table

FILE_NAME = "leaderboard.md"
_ROW = ["method", "year", "venue", "backbone", "dataset", "source"]
_ORDER = ["dataset", "year", "method", "backbone", "source"]
_INTRODUCTION = """\
# Leaderboard

Made from the records in `measured/` by `wsolbench table`; changes by hand are lost.

Figures are percentages: mean ± sample standard deviation over the seeds of a row. A column marked
(oracle) was chosen on the very images it is reported for. Only runs of one dataset, regime and
protocol are ranked together; a row is one recipe on one kind of device in one precision.

## Measured here"""
_COSTS = """\
## What they cost

MACs are multiply-accumulates of localizing one image, those of fused attention included. Training
is by the clock, with the reading of images; inference is one batch localized again and again,
without. Memory is the most that was taken: of the accelerator, or by the whole process on a
processor. A dash is what was not measured."""
_PUBLISHED = """\
## Published figures (not measured here, never ranked with ours)

As the authors printed them, each with its source. Their data, backbones, protocols and choice of
threshold differ from ours and from each other."""


def leaderboard(
    results: Sequence[Result],
    reported: pd.DataFrame,
    titles: Titles,
    intervals: Intervals = NO_INTERVALS,
) -> str:
    """Return the page in Markdown.

    Args:
        results: measured records, in any order.
        reported: what :func:`read_reported` returns.
        titles: method name to the title it has in tables and in ``reported``.
        intervals: what :func:`wsolbench.analysis.row_intervals` returns.
    """
    measured = markdown(results, titles, intervals) or "No runs yet."
    published = published_table(reported, set(titles.values())) or "None for these methods."
    few = few_shot.markdown(results, titles)
    parts = [_INTRODUCTION, measured, few, _costs(results, titles), _PUBLISHED, published]
    return "\n\n".join(part for part in parts if part) + "\n"


def _costs(results: Sequence[Result], titles: Titles) -> str:
    columns, rows = cost_rows(results, titles)
    table = markdown_table(columns, rows, numbers=columns[len(TEXTS) :])
    return f"{_COSTS}\n\n{table}" if rows else ""


class Board(NamedTuple):
    """What a results folder holds.

    Attributes:
        results: its records.
        intervals: those of its rows.
        problems: one line for each file that is no usable record or table.
    """

    results: list[Result]
    intervals: Intervals
    problems: list[str]


def write_leaderboard(folder: Path, titles: Titles) -> Board:
    """Write ``leaderboard.md`` from the records of a results folder.

    Returns:
        All that the page was made of, and what could not be used.

    Raises:
        InputError: when there is no such folder, or it cannot be written to.
    """
    results, problems = load_results(folder)
    intervals, unusable = row_intervals(results, folder)
    write_text(folder / FILE_NAME, leaderboard(results, read_reported(), titles, intervals))
    return Board(results, intervals, problems + unusable)


def read_reported() -> pd.DataFrame:
    """Read the published figures that come with the suite; every value is text, as printed."""
    return read_table("published.csv")


def published_table(reported: pd.DataFrame, methods: Collection[str]) -> str:
    """Return :func:`published` as a Markdown table; "" if there is nothing in it."""
    chosen = published(reported, methods)
    if chosen.empty:
        return ""
    figures = [title for title in FIGURE_TITLES.values() if title in chosen]
    return markdown_table([*chosen], chosen.to_numpy().tolist(), numbers=figures)


def published(reported: pd.DataFrame, methods: Collection[str]) -> pd.DataFrame:
    """Return figures of ``methods`` from primary sources, as printed.

    A line is what one source says of one method with one backbone on one dataset. What a source
    adds to a method's name in brackets does not make it another method.
    """
    by_title = {title: figure for figure, title in FIGURE_TITLES.items()}
    primary = reported["source"].str.startswith("primary")
    names = reported["method"].str.partition(" (")[0]
    ours = names.isin(methods) & reported["metric"].isin(by_title)
    # a source that prints two values for one thing is shown with both
    by_row = reported[primary & ours].groupby([*_ROW, "metric"])["value"]
    cells = by_row.agg(" / ".join).unstack(fill_value=UNDEFINED)
    figures = [title for title in by_title if title in cells]
    cells = cells.reset_index().sort_values(_ORDER, key=lambda column: column.str.casefold())
    return cells[[*_ROW[:-1], *figures, _ROW[-1]]]
