"""The commands ``list``, ``show``, ``check`` and ``new-method``: what there is, and more of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wsolbench.cli.common import (
    EVERYWHERE,
    WHAT,
    Parser,
    add_command,
    add_data_root,
    add_recipe,
    data_root,
    given,
    warn,
)


def add_list(sub: Any) -> Parser:
    """Add ``list``."""
    return add_command(sub, "list", "Name the methods, datasets, protocols and suites.", _list)


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
    warn([f"{n}: {why}" for r in (METHODS, DATASETS) for n, why in r.broken.items()])
    return 0


def add_show(sub: Any) -> Parser:
    """Add ``show``."""
    parser = add_command(sub, "show", "Print a resolved recipe.", _show)
    parser.add_argument("--method", required=True, metavar="M")
    parser.add_argument("--dataset", required=True, metavar="D")
    add_recipe(parser)
    parser.add_argument("--seed", metavar="N", type=int)
    return parser


def _show(arguments: argparse.Namespace) -> int:
    import yaml

    from wsolbench.request import make_request

    fields = given(arguments, *WHAT, *EVERYWHERE)
    (recipe,) = make_request({**fields, "method": [arguments.method]}).recipes()
    print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip())
    return 0


def add_check(sub: Any) -> Parser:
    """Add ``check``."""
    parser = add_command(
        sub, "check", "Put a method or dataset through the conformance kit.", _check
    )
    parser.add_argument("name", metavar="NAME", help="name of the method or dataset")
    add_data_root(parser)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from wsolbench.checks import Status, check_plugin

    failed = False
    for name, outcome in check_plugin(arguments.name, data_root(arguments)):
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"{outcome.status:<14}  {name}{reason}", flush=True)
        failed |= outcome.status is Status.FAILED
    return int(failed)


def add_new_method(sub: Any) -> Parser:
    """Add ``new-method``."""
    parser = add_command(sub, "new-method", "Write a method to start from, and its recipe.", _new)
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9 and '-', such as my-method")
    text = "where to write (methods/ of the checkout, outside of one of the current folder)"
    parser.add_argument("--folder", metavar="DIR", type=Path, help=text)
    return parser


def _new(arguments: argparse.Namespace) -> int:
    from wsolbench.scaffold import how_to_find, new_method

    files = new_method(arguments.name, arguments.folder)
    for file in files:
        print(f"wrote {file}")
    print(how_to_find(files[0], arguments.name))
    return 0
