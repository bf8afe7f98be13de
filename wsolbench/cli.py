"""The command line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wsolbench import __version__
from wsolbench.errors import InputError, WsolbenchError, did_you_mean

if TYPE_CHECKING:
    from wsolbench.dataset import Split
    from wsolbench.metrics.scorer import Scorer
    from wsolbench.protocol import Protocol
    from wsolbench.recipe import Recipe
    from wsolbench.request import Request
    from wsolbench.results import Result

log = logging.getLogger("wsolbench")

DATA_VARIABLE = "WSOLBENCH_DATA"
#: options that say what to run, which the runs of a suite say themselves
_WHAT = ("method", "dataset", "recipe", "backbone", "batch_size", "protocol", "set", "weights")
#: options that apply to all runs of a suite too
_EVERYWHERE = ("epochs", "precision", "seed")
INTERRUPTED = 130
PIPE_CLOSED = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wsolbench`` and return its exit code: 0, 1 for a failed run, 2 for wrong input."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except WsolbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `table | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last whole epoch", file=sys.stderr)
        return INTERRUPTED


def benchmark_main(argv: Sequence[str] | None = None) -> int:
    """Run ``run_benchmark.py``: as ``wsolbench run``, unless a sub-command comes first."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else ""
    # A word in front can only be a sub-command, and a misspelt one should be told so.
    passes = not first.startswith("-") or first in ("-h", "--help", "--version")
    return main(arguments if passes and first else ["run", *arguments])


class _Parser(argparse.ArgumentParser):
    """Reports errors as one line and knows what may have been meant."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def known_options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


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


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="wsolbench",
        description="A benchmark for weakly supervised object localization.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(command=lambda _: _help(parser))
    sub = parser.add_subparsers(metavar="COMMAND [options]", parser_class=_Parser)
    adders = {
        "run": _add_run,
        "score": _add_score,
        "table": _add_table,
        "analyse": _add_analyse,
        "list": _add_list,
        "show": _add_show,
        "check": _add_check,
        "new-method": _add_new_method,
    }
    commands = {name: add(sub) for name, add in adders.items()}
    return parser, commands


def _help(parser: _Parser) -> int:
    parser.print_help()
    return 0


def _command(sub: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]) -> _Parser:
    parser: _Parser = sub.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=run)
    return parser


def _add_data(parser: _Parser, required: bool = True) -> None:
    parser.add_argument("--dataset", required=required, metavar="D", help="dataset to use")
    _add_data_root(parser)


def _add_data_root(parser: _Parser) -> None:
    text = f"folder that contains the dataset's own (else ${DATA_VARIABLE}, else ./data)"
    parser.add_argument("--data-root", metavar="DIR", type=Path, help=text)


def _add_recipe(parser: _Parser) -> None:
    add = parser.add_argument
    add("--recipe", metavar="R", help="default (unless given), released or declared")
    add("--backbone", metavar="TIMM_NAME", help="timm model, with its weights tag")
    add("--epochs", metavar="N", type=int)
    add("--batch-size", metavar="N", type=int)
    add("--protocol", metavar="P[,P2...]", type=_names, help="how maps are scored")
    add("--precision", metavar="32|bf16", help="of training and evaluation")
    text = "any recipe field, such as optim.lr=1e-4 or options.area_target=0.3"
    add("--set", metavar="a.b=v", action="extend", nargs="+", default=[], help=text)


def _add_results(parser: _Parser) -> None:
    text = "folder of records, checkpoints and the leaderboard (./results)"
    parser.add_argument("--results", metavar="DIR", type=Path, default=Path("results"), help=text)


def _add_run(sub: Any) -> _Parser:
    parser = _command(sub, "run", "Train, score, write records and the leaderboard.", _run)
    add = parser.add_argument
    text = "named runs: a name that `list` shows, or a .yaml file (default, when nothing is named)"
    add("--suite", metavar="S", help=text)
    add("--method", metavar="M[,M2...]", type=_names)
    _add_data(parser, required=False)
    _add_recipe(parser)
    text = "score these trained weights: the authors' checkpoint, or one of results/runs"
    add("--weights", metavar="FILE", type=Path, help=text)
    add("--seed", metavar="N[,N2...]", type=_seeds, help="one run for each")
    text = "folder with <timm name>.safetensors (else timm downloads)"
    add("--weights-dir", metavar="DIR", type=Path, help=text)
    add("--device", default="auto", metavar="auto|cpu|cuda")
    _add_results(parser)
    add("--save-maps", metavar="DIR", type=Path, help="keep score maps and logits there")
    return parser


def _add_score(sub: Any) -> _Parser:
    parser = _command(sub, "score", "Score maps made by any code.", _score)
    add = parser.add_argument
    text = "folder with <image id>.npy (h, w) and perhaps logits.npz (image_id, logits)"
    add("--maps", required=True, metavar="DIR", type=Path, help=text)
    _add_data(parser)
    add("--protocol", default="wsoleval", metavar="P")
    add("--val-maps", metavar="DIR", type=Path, help="maps of the held-out images")
    add("--holdout", metavar="N", type=_count, help="held-out images a class (as in default)")
    add("--json", metavar="FILE", type=Path, help="write figures, threshold and curves there")
    return parser


def _add_table(sub: Any) -> _Parser:
    parser = _command(
        sub, "table", "Print the tables of a results folder, make its leaderboard.", _table
    )
    _add_results(parser)
    parser.add_argument("--format", default="md", choices=("md", "csv", "latex"))
    text = "write threshold curves there as CSV"
    parser.add_argument("--curves", metavar="CSV", type=Path, help=text)
    return parser


def _add_analyse(sub: Any) -> _Parser:
    text = "Say what a run's images tell, or whether one run's method beats another's."
    parser = _command(sub, "analyse", text, _analyse)
    text = "record with a table of its images, in results/measured"
    parser.add_argument("record", metavar="RECORD", type=Path, help=text)
    text = "compare with this one, each with all seeds of its row"
    parser.add_argument("other", metavar="RECORD2", type=Path, nargs="?", help=text)
    return parser


def _add_list(sub: Any) -> _Parser:
    return _command(sub, "list", "Name the methods, datasets, protocols and suites.", _list)


def _add_show(sub: Any) -> _Parser:
    parser = _command(sub, "show", "Print a resolved recipe.", _show)
    parser.add_argument("--method", required=True, metavar="M")
    parser.add_argument("--dataset", required=True, metavar="D")
    _add_recipe(parser)
    parser.add_argument("--seed", metavar="N", type=int)
    return parser


def _add_check(sub: Any) -> _Parser:
    parser = _command(sub, "check", "Put a method or dataset through the conformance kit.", _check)
    parser.add_argument("name", metavar="NAME", help="name of the method or dataset")
    _add_data_root(parser)
    return parser


def _add_new_method(sub: Any) -> _Parser:
    parser = _command(sub, "new-method", "Write a method to start from, and its recipe.", _new)
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9 and '-', such as my-method")
    text = "where to write (methods/ of the checkout, outside of one of the current folder)"
    parser.add_argument("--folder", metavar="DIR", type=Path, help=text)
    return parser


# ------------------------------------------------------------------------------------ commands
# torch takes seconds to import, and `--help` or a misspelt option should not wait for it.


def _run(arguments: argparse.Namespace) -> int:
    from wsolbench import tables
    from wsolbench.device import choose_device, make_deterministic
    from wsolbench.environment import code_state
    from wsolbench.leaderboard import write_leaderboard
    from wsolbench.run import Places, Run, SharedData

    code_state()
    make_deterministic()
    device = choose_device(arguments.device)
    data = SharedData(_data_root(arguments))
    folders = (arguments.results, arguments.weights_dir, arguments.save_maps)
    plan = [(recipe, request) for request in _requests(arguments) for recipe in request.recipes()]

    def prepared(recipe: Recipe, request: Request) -> Run:
        places = Places(*folders, request.weights)
        return Run(recipe, data, places, device, request.command(recipe, device.type))

    # refuse what can be refused before the first hour of training
    for recipe, request in {_apart(recipe): (recipe, request) for recipe, request in plan}.values():
        prepared(recipe, request)
    made: dict[Any, Result] = {}
    for number, (recipe, request) in enumerate(plan, 1):
        what = (recipe.method, recipe.dataset, recipe.seed)
        log.info("run %d of %d: %s on %s, seed %d", number, len(plan), *what)
        results = prepared(recipe, request).execute()
        made |= {result.identity(): result for result in results}
        _say(results)
        _warn(write_leaderboard(arguments.results, _titles()))
    print(f"\n{tables.terminal(made.values(), _titles())}\n")
    print(f"leaderboard: {arguments.results / 'leaderboard.md'}")
    return 0


def _apart(recipe: Recipe) -> tuple[object, ...]:
    """What may be refused does not depend on the seed."""
    return recipe.key(), recipe.protocol, recipe.precision


def _say(results: Sequence[Result]) -> None:
    for result in results:
        figures = ", ".join(f"{name} {value:.2f}" for name, value in result.figures.items())
        recipe = result.recipe
        print(f"{recipe.method} seed {recipe.seed} {result.protocol.name}: {figures}")


def _score(arguments: argparse.Namespace) -> int:
    from wsolbench.files import write_text
    from wsolbench.protocol import load_protocol
    from wsolbench.registry import DATASETS
    from wsolbench.scoring import saved_predictions, score, scores_of

    protocol = load_protocol(arguments.protocol)
    held_out = protocol.selection.kind == "held-out"
    if held_out and arguments.val_maps is None:
        raise InputError(
            f"protocol '{protocol.name}' chooses its threshold on held-out images; "
            "give their maps with --val-maps DIR"
        )
    holdout = _holdout(arguments) if held_out else 0
    dataset = DATASETS.get(arguments.dataset)(_data_root(arguments), holdout)
    maps = {"val": arguments.val_maps, "test": arguments.maps}

    def scorer(protocol: Protocol, split: Split) -> Scorer:
        samples = dataset.samples(split)
        stream = saved_predictions(maps[split], samples)
        names = dataset.part_names
        return score(stream, samples, protocol, dataset.name, split, part_names=names)

    scores, _, percentile = scores_of(protocol, scorer)
    for name, value in scores.figures.items():
        print(f"{name}{' (oracle)' if name in protocol.oracle else ''}: {value:.2f}")
    if scores.threshold is not None:
        print(f"threshold ({protocol.selection.kind}): {scores.threshold:g}")
    if percentile is not None:
        print(f"percentile: {percentile:g}")
    if arguments.json is not None:
        content = {"protocol": protocol.name, "percentile": percentile, **vars(scores)}
        write_text(arguments.json, json.dumps(content) + "\n")
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from wsolbench import tables
    from wsolbench.analysis import row_intervals
    from wsolbench.leaderboard import write_leaderboard
    from wsolbench.results import load_results

    results, _ = load_results(arguments.results)
    intervals, _ = row_intervals(results, arguments.results)
    _warn(write_leaderboard(arguments.results, _titles()))
    renderers = {"md": tables.markdown, "csv": tables.csv, "latex": tables.latex}
    text = renderers[arguments.format](results, _titles(), intervals)
    print(text.rstrip("\n") or "no runs yet")
    if arguments.curves is not None:
        tables.curves_csv(results, arguments.curves)
    return 0


def _analyse(arguments: argparse.Namespace) -> int:
    from wsolbench.analysis import analyse, compare

    first, second = arguments.record, arguments.other
    print(analyse(first, _titles()) if second is None else compare(first, second, _titles()))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from wsolbench.protocol import load_protocol, protocol_names
    from wsolbench.registry import DATASETS, METHODS
    from wsolbench.suite import load_suite, suite_names

    methods = {
        n: f"{METHODS.get(n).info.paper}, {METHODS.get(n).info.year}" for n in METHODS.names()
    }
    datasets = {n: f"{DATASETS.get(n).title}: {DATASETS.get(n).layout}" for n in DATASETS.names()}
    protocols = {n: load_protocol(n).title for n in protocol_names()}
    suites = {n: load_suite(n).title for n in suite_names()}
    named = {"method": methods, "dataset": datasets, "protocol": protocols, "suite": suites}
    for kind, entries in named.items():
        for name, text in entries.items():
            print(f"{kind:<9} {name:<12} {text}")
    _warn([f"{n}: {why}" for r in (METHODS, DATASETS) for n, why in r.broken.items()])
    return 0


def _show(arguments: argparse.Namespace) -> int:
    import yaml

    from wsolbench.request import make_request

    fields = _given(arguments, *_WHAT, *_EVERYWHERE)
    (recipe,) = make_request({**fields, "method": [arguments.method]}).recipes()
    print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from wsolbench.checks import Status, check_plugin

    failed = False
    for name, outcome in check_plugin(arguments.name, _data_root(arguments)):
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"{outcome.status:<14}  {name}{reason}", flush=True)
        failed |= outcome.status is Status.FAILED
    return int(failed)


def _new(arguments: argparse.Namespace) -> int:
    from wsolbench.scaffold import how_to_find, new_method

    files = new_method(arguments.name, arguments.folder)
    for file in files:
        print(f"wrote {file}")
    print(how_to_find(files[0], arguments.name))
    return 0


# ------------------------------------------------------------------------------------- helpers


def _requests(arguments: argparse.Namespace) -> Sequence[Request]:
    from wsolbench.request import make_request
    from wsolbench.suite import DEFAULT, load_suite

    what, everywhere = _given(arguments, *_WHAT), _given(arguments, *_EVERYWHERE)
    if what and arguments.suite is not None:
        option = next(iter(what)).replace("_", "-")
        raise InputError(f"--{option} does not go with --suite, whose runs say what they are")
    if not what:
        return [request.but(everywhere) for request in load_suite(arguments.suite or DEFAULT).runs]
    missing = ", ".join(f"--{name}" for name in ("method", "dataset") if name not in what)
    if missing:
        raise InputError(
            f"the following arguments are required: {missing} (see wsolbench run --help)"
        )
    return [make_request(what | everywhere)]


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    values = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in values.items() if value not in (None, [])}


def _data_root(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.data_root
    return given if given is not None else Path(os.environ.get(DATA_VARIABLE) or "data")


def _holdout(arguments: argparse.Namespace) -> int:
    from wsolbench.recipe import default_holdout
    from wsolbench.request import dataset_part

    given: int | None = arguments.holdout
    return default_holdout(dataset_part(arguments.dataset)) if given is None else given


def _titles() -> dict[str, str]:
    from wsolbench.registry import METHODS

    return {name: METHODS.get(name).info.title for name in METHODS.names()}


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"takes a number from 0 up, got '{text}'")
    return int(text)


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes numbers, got '{text}'") from None
