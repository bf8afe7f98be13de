"""The commands ``table`` and ``analyse``: what the records say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wsolbench.cli.common import Parser, add_command, add_results, titles, warn


def add_table(sub: Any) -> Parser:
    """Add ``table``."""
    parser = add_command(
        sub, "table", "Print the tables of a results folder, make its leaderboard.", _table
    )
    add_results(parser)
    parser.add_argument("--format", default="md", choices=("md", "csv", "latex"))
    text = "write threshold curves there as CSV"
    parser.add_argument("--curves", metavar="CSV", type=Path, help=text)
    text = "write accuracy over the number of training images there as CSV"
    parser.add_argument("--few-shot", metavar="CSV", type=Path, help=text)
    return parser


def _table(arguments: argparse.Namespace) -> int:
    from wsolbench import few_shot, tables
    from wsolbench.analysis import row_intervals
    from wsolbench.files import write_text
    from wsolbench.leaderboard import write_leaderboard
    from wsolbench.results import load_results

    results, _ = load_results(arguments.results)
    intervals, _ = row_intervals(results, arguments.results)
    warn(write_leaderboard(arguments.results, titles()))
    renderers = {"md": tables.markdown, "csv": tables.csv, "latex": tables.latex}
    text = renderers[arguments.format](results, titles(), intervals)
    if arguments.format == "md":
        text = f"{text}\n\n{few_shot.markdown(results, titles())}".strip()
    print(text.rstrip("\n") or "no runs yet")
    if arguments.curves is not None:
        tables.curves_csv(results, arguments.curves)
    if arguments.few_shot is not None:
        write_text(arguments.few_shot, few_shot.csv(results, titles()))
    return 0


def add_analyse(sub: Any) -> Parser:
    """Add ``analyse``."""
    text = "Say what a run's images tell, or whether one run's method beats another's."
    parser = add_command(sub, "analyse", text, _analyse)
    text = "record with a table of its images, in results/measured"
    parser.add_argument("record", metavar="RECORD", type=Path, help=text)
    text = "compare with this one, each with all seeds of its row"
    parser.add_argument("other", metavar="RECORD2", type=Path, nargs="?", help=text)
    return parser


def _analyse(arguments: argparse.Namespace) -> int:
    from wsolbench.analysis import analyse, compare

    first, second = arguments.record, arguments.other
    print(analyse(first, titles()) if second is None else compare(first, second, titles()))
    return 0
