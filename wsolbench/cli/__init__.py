"""The command line: one module a group of commands."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from wsolbench import __version__
from wsolbench.cli import data, plugins, predict, run, score, table
from wsolbench.cli.common import Parser
from wsolbench.errors import InputError, WsolbenchError, did_you_mean
from wsolbench.stopping import StoppedError, stoppable

INTERRUPTED = 130
PIPE_CLOSED = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wsolbench`` and return its exit code: 0, 1 for a failed run, 2 for wrong input."""
    try:
        with stoppable():
            return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except WsolbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        if not _is_of_a_lost_process(error):
            raise
        print("error: another process of this run ended; its own line says why", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `table | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt as stop:
        where = f": {stop}" if str(stop) else ""
        print(f"interrupted{where}; the same command goes on", file=sys.stderr)
        return stop.exit_code if isinstance(stop, StoppedError) else INTERRUPTED


def benchmark_main(argv: Sequence[str] | None = None) -> int:
    """Run ``run_benchmark.py``: as ``wsolbench run``, unless a sub-command comes first."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else ""
    # A word in front can only be a sub-command, and a misspelt one should be told so.
    passes = not first.startswith("-") or first in ("-h", "--help", "--version")
    return main(arguments if passes and first else ["run", *arguments])


def _is_of_a_lost_process(error: RuntimeError) -> bool:
    """Whether waiting for the other processes failed, not work of this one's own."""
    from wsolbench import processes  # with torch, which takes seconds

    return processes.lost_one(error)


def _dispatch(argv: list[str]) -> int:
    parser, commands = _parsers()
    first = argv[0] if argv else "--help"
    if not first.startswith("-") and first not in commands:
        raise InputError(f"unknown command '{first}'{did_you_mean(first, commands)}")
    known = commands.get(first, parser).known_options()
    # Before argparse, which would say first that the option that was meant is missing.
    _refuse([word for word in argv if word.startswith("--")], known)
    arguments, unknown = parser.parse_known_args(argv)
    _refuse(unknown, known)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("wsolbench").setLevel(logging.INFO)  # and leave those of libraries alone
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def _refuse(words: Sequence[str], known: Sequence[str]) -> None:
    for option in (word.partition("=")[0] for word in words):
        if option not in known:
            raise InputError(f"unknown option '{option}'{did_you_mean(option, known)}")


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="wsolbench",
        description="A benchmark for weakly supervised object localization.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(command=lambda _: _help(parser))
    sub = parser.add_subparsers(metavar="COMMAND [options]", parser_class=Parser)
    adders = {
        "run": run.add_run,
        "predict": predict.add_predict,
        "score": score.add_score,
        "table": table.add_table,
        "analyse": table.add_analyse,
        "figure": table.add_figure,
        "list": plugins.add_list,
        "show": plugins.add_show,
        "check": plugins.add_check,
        "new-method": plugins.add_new_method,
        "check-data": data.add_check_data,
        "download": data.add_download,
    }
    commands = {name: add(sub) for name, add in adders.items()}
    return parser, commands


def _help(parser: Parser) -> int:
    parser.print_help()
    return 0
