"""The commands ``check-data`` and ``download``: whether data are right, and how to get them."""

from __future__ import annotations

import argparse
from typing import Any

from wsolbench.cli.common import Parser, add_command, add_data_root, data_root


def add_check_data(sub: Any) -> Parser:
    """Add ``check-data``."""
    text = "Read, decode and compare all files of a dataset; exit code 1 where something is wrong."
    return _add(sub, "check-data", text, _check_data)


def _check_data(arguments: argparse.Namespace) -> int:
    from wsolbench.datacheck import Weight, check_data
    from wsolbench.registry import DATASETS

    faulty = False
    for weight, text in check_data(DATASETS.get(arguments.name), data_root(arguments)):
        print(f"{weight:<6} {text}", flush=True)
        faulty |= weight is Weight.FAULT
    return int(faulty)


def add_download(sub: Any) -> Parser:
    """Add ``download``."""
    text = "Fetch a dataset, or what of it can be fetched, and say what else is to be done."
    return _add(sub, "download", text, _download)


def _download(arguments: argparse.Namespace) -> int:
    from wsolbench.download import fetch
    from wsolbench.registry import DATASETS

    dataset, root = DATASETS.get(arguments.name), data_root(arguments)
    try:
        for line in fetch(dataset.archives, root):
            print(line, flush=True)
    finally:  # all the more where something could not be had
        for line in dataset.steps:
            print(line.replace("DATA_ROOT", str(root)), flush=True)
    if not dataset.archives and not dataset.steps:
        print(f"{arguments.name} has nothing to fetch: {dataset.layout}")
    return 0


def _add(sub: Any, name: str, text: str, run: Any) -> Parser:
    parser = add_command(sub, name, text, run)
    parser.add_argument("name", metavar="DATASET", help="name of the dataset")
    add_data_root(parser)
    return parser
