"""The leaderboard page: what was measured here, and apart from it what papers published."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from wsolbench import few_shot
from wsolbench.analysis import row_intervals
from wsolbench.cost_table import TEXTS, cost_rows
from wsolbench.files import write_text
from wsolbench.reported import read_table
from wsolbench.results import Result, load_results
from wsolbench.tables import (
    FIGURE_TITLES,
    NO_INTERVALS,
    UNDEFINED,
    Intervals,
    Titles,
    markdown,
    markdown_table,
)

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


def write_leaderboard(folder: Path, titles: Titles) -> list[str]:
    """Write ``leaderboard.md`` from the records of a results folder.

    Returns:
        One line for each file that is no usable record or table; the page is made from the others.

    Raises:
        InputError: when there is no such folder, or it cannot be written to.
    """
    results, problems = load_results(folder)
    intervals, unusable = row_intervals(results, folder)
    page = leaderboard(results, read_reported(), titles, intervals)
    write_text(folder / FILE_NAME, page)
    return problems + unusable


def read_reported() -> pd.DataFrame:
    """Read the published figures that come with the suite; every value is text, as printed."""
    return read_table("published.csv")


def published_table(reported: pd.DataFrame, methods: Collection[str]) -> str:
    """Return figures of ``methods`` from primary sources as a Markdown table; "" if there are none.

    A row is what one source says of one method with one backbone on one dataset.
    """
    by_title = {title: figure for figure, title in FIGURE_TITLES.items()}
    primary = reported["source"].str.startswith("primary")
    ours = reported["method"].isin(methods) & reported["metric"].isin(by_title)
    chosen = reported[primary & ours]
    if chosen.empty:
        return ""
    # a source that prints two values for one thing is shown with both
    cells = chosen.groupby([*_ROW, "metric"])["value"].agg(" / ".join).unstack(fill_value=UNDEFINED)
    figures = [title for title in by_title if title in cells]
    cells = cells.reset_index().sort_values(_ORDER, key=lambda column: column.str.casefold())
    columns = [*_ROW[:-1], *figures, _ROW[-1]]
    return markdown_table(columns, cells[columns].to_numpy().tolist(), numbers=figures)
