"""The commands ``table``, ``analyse`` and ``figure``: what the records say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench.cli.common import (
    Parser,
    add_command,
    add_data_root,
    add_results,
    data_root,
    names,
    titles,
    warn,
)

if TYPE_CHECKING:
    from wsolbench.leaderboard import Board


def add_table(sub: Any) -> Parser:
    """Add ``table``."""
    parser = add_command(
        sub, "table", "Print the tables of a results folder, make its leaderboard and page.", _table
    )
    add_results(parser)
    add_data_root(parser)
    text = "pictures in the page: all there are data of, those that may be handed on, or none"
    parser.add_argument("--pictures", default="all", choices=("all", "free", "none"), help=text)
    parser.add_argument("--format", default="md", choices=("md", "csv", "latex"))
    text = "write threshold curves there as CSV"
    parser.add_argument("--curves", metavar="CSV", type=Path, help=text)
    text = "write accuracy over the number of training images there as CSV"
    parser.add_argument("--few-shot", metavar="CSV", type=Path, help=text)
    return parser


def _table(arguments: argparse.Namespace) -> int:
    from wsolbench import few_shot, tables
    from wsolbench.files import write_text
    from wsolbench.leaderboard import write_leaderboard
    from wsolbench.report.page import Source, write_page

    board = write_leaderboard(arguments.results, titles())
    source = Source(data_root(arguments), arguments.pictures)
    warn([*board.problems, *write_page(arguments.results, board, titles(), source)])
    text = _in_format(arguments.format, board)
    print(text.rstrip("\n") or "no runs yet")
    if arguments.curves is not None:
        tables.curves_csv(board.results, arguments.curves)
    if arguments.few_shot is not None:
        write_text(arguments.few_shot, few_shot.csv(board.results, titles()))
    return 0


def _in_format(name: str, board: Board) -> str:
    """All tables; in CSV those of few training images are a file of their own."""
    from wsolbench import few_shot, tables

    if name == "csv":
        return tables.csv(board.results, titles(), board.intervals)
    whole, few = {
        "md": (tables.markdown, few_shot.markdown),
        "latex": (tables.latex, few_shot.latex),
    }[name]
    parts = whole(board.results, titles(), board.intervals), few(board.results, titles())
    return "\n\n".join(filter(None, parts))


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


def add_figure(sub: Any) -> Parser:
    """Add ``figure``."""
    text = "Make a figure (PDF, PNG) or table (LaTeX) for a paper: the comparison of a record."
    parser = add_command(sub, "figure", text, _figure)
    text = "pictures with maps and boxes, accuracy over the threshold, or over images a class"
    parser.add_argument("kind", choices=("grid", "curve", "few-shot", "table"), help=text)
    text = "record in results/measured"
    parser.add_argument("record", metavar="RECORD", type=Path, help=text)
    text = "folder to write to (./figures)"
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("figures"), help=text)
    text = "only these methods"
    parser.add_argument("--method", metavar="M[,M2...]", type=names, default=[], help=text)
    text = "images of the grid (a few that are chosen by nothing but their names)"
    parser.add_argument("--images", metavar="ID[,ID2...]", type=names, default=[], help=text)
    add_data_root(parser)
    return parser


def _figure(arguments: argparse.Namespace) -> int:
    from wsolbench.report.figures import draw

    kind, record, out = arguments.kind, arguments.record, arguments.out
    shown = arguments.method, arguments.images
    for file in draw(kind, record, out, titles(), data_root(arguments), *shown):
        print(f"wrote {file}")
    return 0
