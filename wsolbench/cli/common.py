"""What the commands share: the parser, options that several have, and what they mean."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from wsolbench.errors import InputError

DATA_VARIABLE = "WSOLBENCH_DATA"
#: options that say what to run, which the runs of a suite say themselves
WHAT = (
    *("method", "dataset", "recipe", "backbone", "batch_size", "protocol", "set", "weights"),
    *("shots", "draws"),
)
#: options that apply to all runs of a suite too
EVERYWHERE = ("epochs", "precision", "seed")


class Parser(argparse.ArgumentParser):
    """Reports errors as one line and knows what may have been meant."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def known_options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


def add_command(sub: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> Parser:
    """Add a sub-command: its name, what help says of it, what it does."""
    parser: Parser = sub.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=run)
    return parser


def add_data(parser: Parser, required: bool = True) -> None:
    """Add the options that name a dataset."""
    parser.add_argument("--dataset", required=required, metavar="D", help="dataset to use")
    add_data_root(parser)


def add_data_root(parser: Parser) -> None:
    """Add the option that says where data lie."""
    text = f"folder that contains the dataset's own (else ${DATA_VARIABLE}, else ./data)"
    parser.add_argument("--data-root", metavar="DIR", type=Path, help=text)


def add_recipe(parser: Parser) -> None:
    """Add the options that choose and change a recipe."""
    add = parser.add_argument
    add("--recipe", metavar="R", help="default (unless given), released or declared")
    add("--backbone", metavar="TIMM_NAME", help="timm model, with its weights tag")
    add("--epochs", metavar="N", type=int)
    add("--batch-size", metavar="N", type=int)
    add("--protocol", metavar="P[,P2...]", type=names, help="how maps are scored")
    add("--precision", metavar="32|tf32|bf16", help="of training and evaluation")
    text = "any recipe field, such as optim.lr=1e-4 or options.area_target=0.3"
    add("--set", metavar="a.b=v", action="extend", nargs="+", default=[], help=text)


def add_results(parser: Parser) -> None:
    """Add the option that names the results folder."""
    text = "folder of records, checkpoints and the leaderboard (./results)"
    parser.add_argument("--results", metavar="DIR", type=Path, default=Path("results"), help=text)


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the options that the user gave, by name."""
    values = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in values.items() if value not in (None, [])}


def data_root(arguments: argparse.Namespace) -> Path:
    """Return the folder that contains the datasets' own."""
    given: Path | None = arguments.data_root
    return given if given is not None else Path(os.environ.get(DATA_VARIABLE) or "data")


def titles() -> dict[str, str]:
    """Return the name in tables of each method."""
    from wsolbench.registry import METHODS

    return {name: METHODS.get(name).info.title for name in METHODS.names()}


def warn(problems: Sequence[str]) -> None:
    """Say problems that stop nothing."""
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def names(text: str) -> list[str]:
    """Read names between commas."""
    return [name.strip() for name in text.split(",")]


def count(text: str) -> int:
    """Read a number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"takes a number from 0 up, got '{text}'")
    return int(text)


def positive(text: str) -> int:
    """Read a number from 1 up."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"takes a number from 1 up, got '{text}'")
    return int(text)


def shots(text: str) -> list[str]:
    """Read numbers of images a class between commas, ``all`` among them."""
    parts = names(text)
    if not all(part == "all" or (part.isdecimal() and int(part)) for part in parts):
        raise argparse.ArgumentTypeError(f"takes numbers from 1 up or 'all', got '{text}'")
    return parts


def seeds(text: str) -> list[int]:
    """Read numbers between commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes numbers, got '{text}'") from None
