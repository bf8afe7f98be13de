"""The command ``run``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench.cli.common import (
    EVERYWHERE,
    WHAT,
    Parser,
    add_command,
    add_data,
    add_recipe,
    add_results,
    data_root,
    given,
    names,
    positive,
    seeds,
    shots,
    titles,
    warn,
)
from wsolbench.errors import InputError

if TYPE_CHECKING:
    import torch

    from wsolbench.recipe import Recipe
    from wsolbench.request import Request
    from wsolbench.results import Result
    from wsolbench.run import Run

log = logging.getLogger("wsolbench")


def add_run(sub: Any) -> Parser:
    """Add ``run``."""
    parser = add_command(sub, "run", "Train, score, write records and the leaderboard.", _run)
    add = parser.add_argument
    text = "named runs: a name that `list` shows, or a .yaml file (default, when nothing is named)"
    add("--suite", metavar="S", help=text)
    add("--method", metavar="M[,M2...]", type=names)
    add_data(parser, required=False)
    add_recipe(parser)
    text = "score these trained weights: the authors' checkpoint, or one of results/runs"
    add("--weights", metavar="FILE", type=Path, help=text)
    add("--seed", metavar="N[,N2...]", type=seeds, help="one run for each")
    text = "train on so many images a class, or 'all': one run for each"
    add("--shots", metavar="K[,K2...]", type=shots, help=text)
    text = "so many choices of these images: one run for each"
    add("--draws", metavar="N", type=int, help=text)
    text = "folder with <timm name>.safetensors (else timm downloads)"
    add("--weights-dir", metavar="DIR", type=Path, help=text)
    text = "folder on a fast disk for decoded training images that memory has no room for"
    add("--cache", metavar="DIR", type=Path, help=text)
    add("--device", default="auto", metavar="auto|cpu|cuda")
    add("--compile", action="store_true", help="use torch.compile, which is for GPUs")
    add_results(parser)
    text = "go on where records and checkpoints stand (the default), or make all anew"
    add("--resume", action=argparse.BooleanOptionalAction, default=True, help=text)
    text = "checkpoints of a training that stay (2)"
    add("--keep-checkpoints", metavar="N", type=positive, help=text)
    add("--save-maps", metavar="DIR", type=Path, help="keep score maps and logits there")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from wsolbench.metrics.ahead import compile_ahead

    compiling = compile_ahead()  # beside the imports that follow
    from wsolbench import processes
    from wsolbench.device import choose_device, keep_freed_memory, make_deterministic
    from wsolbench.environment import code_state
    from wsolbench.leaderboard import write_leaderboard

    code_state()
    make_deterministic()
    device = processes.join(choose_device(arguments.device))
    keep_freed_memory(device)
    plan = [(recipe, request) for request in _requests(arguments) for recipe in request.recipes()]
    prepared = _preparer(arguments, device)
    first = _firsts(plan, prepared)
    compiling.wait()
    made: dict[Any, Result] = {}
    forgotten: set[Path] = set()
    try:
        for number, (recipe, request) in enumerate(plan, 1):
            what = (recipe.method, recipe.dataset, _which(recipe))
            log.info("run %d of %d: %s on %s, %s", number, len(plan), *what)
            run = first.pop(_apart(recipe), None) or prepared(recipe, request)
            results = _results(run, arguments.resume, forgotten)
            made |= {result.identity(): result for result in results}
            _say(results)
            del run  # and with it its images, before those of the next one are made room for
    finally:  # also where a later run fails or is stopped
        if made and processes.is_first():
            warn(write_leaderboard(arguments.results, titles()).problems)
    _show_tables(list(made.values()), arguments.results)
    return 0


def _preparer(
    arguments: argparse.Namespace, device: torch.device
) -> Callable[[Recipe, Request], Run]:
    """What builds a run of the command, and refuses what can be refused."""
    from wsolbench.engine.checkpoint import KEPT
    from wsolbench.inputs import Places, SharedData
    from wsolbench.run import Run

    data, compiled = SharedData(data_root(arguments), arguments.cache), arguments.compile
    folders = (arguments.results, arguments.weights_dir, arguments.save_maps)
    kept = arguments.keep_checkpoints or KEPT

    def prepared(recipe: Recipe, request: Request) -> Run:
        places = Places(*folders, request.weights, kept)
        command = request.command(recipe, device.type, compiled)
        return Run(recipe, data, places, device, command, compiled)

    return prepared


def _firsts(
    plan: Sequence[tuple[Recipe, Request]], prepared: Callable[[Recipe, Request], Run]
) -> dict[tuple[object, ...], Run]:
    """The first run of each kind: what is refused is so before the first hour of training."""
    first: dict[tuple[object, ...], Run] = {}
    for recipe, request in plan:
        if _apart(recipe) not in first:
            first[_apart(recipe)] = prepared(recipe, request)
    return first


def _show_tables(made: Sequence[Result], folder: Path) -> None:
    from wsolbench import few_shot, tables

    shown = (render(made, titles()) for render in (tables.terminal, few_shot.terminal))
    print("\n" + "\n\n".join(text for text in shown if text) + "\n")
    print(f"leaderboard: {folder / 'leaderboard.md'}")


def _apart(recipe: Recipe) -> tuple[object, ...]:
    """What may be refused does not depend on seed and draw."""
    return recipe.key(), recipe.protocol, recipe.precision


def _results(run: Run, resume: bool, forgotten: set[Path]) -> list[Result]:
    """The records of a run: those that are there, if it may go on from what there is, else new.

    What runs of one command build on in common is trained anew once, for the first of them.
    """
    from wsolbench.recording import standing_records

    if not resume:
        for part in run.chain():
            if part.folder not in forgotten:
                part.forget()
                forgotten.add(part.folder)
        return run.execute()
    # maps may have to be made in any case
    found = [] if run.places.maps else standing_records(run)
    if found:
        log.info("its records are there and whole; --no-resume makes them anew")
    return found or run.execute()


def _say(results: Sequence[Result]) -> None:
    for result in results:
        figures = ", ".join(f"{name} {value:.2f}" for name, value in result.figures.items())
        recipe = result.recipe
        print(f"{recipe.method} {_which(recipe)} {result.protocol.name}: {figures}")
        if result.clean is not None:
            clean = ", ".join(f"{name} {value:.2f}" for name, value in result.clean.figures.items())
            print(f"  without {result.clean.left_out} test images that are in ImageNet: {clean}")


def _which(recipe: Recipe) -> str:
    """What tells a run from others of its command."""
    if recipe.shots is None:
        return f"seed {recipe.seed}"
    return f"seed {recipe.seed} shots {recipe.shots} draw {recipe.draw}"


def _requests(arguments: argparse.Namespace) -> Sequence[Request]:
    from wsolbench.request import make_request
    from wsolbench.suite import DEFAULT, load_suite

    what, everywhere = given(arguments, *WHAT), given(arguments, *EVERYWHERE)
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
