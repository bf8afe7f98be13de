"""All checks of the plugin of a name, for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsolbench.checks.datasets import dataset_checks
from wsolbench.checks.methods import method_checks
from wsolbench.checks.outcome import Outcome
from wsolbench.errors import InputError, did_you_mean
from wsolbench.registry import DATASETS, METHODS


def check_plugin(name: str, data_root: Path) -> Iterator[tuple[str, Outcome]]:
    """Yield name and outcome of each check of a method or dataset.

    Args:
        name: as it is registered.
        data_root: folder that contains the dataset's own.

    Raises:
        InputError: for an unknown name, a plugin that cannot be loaded, or missing data.
    """
    known = {n for r in (METHODS, DATASETS) for n in (*r.names(), *r.broken)}
    if name not in known:
        raise InputError(f"unknown method or dataset '{name}'{did_you_mean(name, known)}")
    if name in METHODS.names() or name in METHODS.broken:
        for check in method_checks(name):
            yield check.name, check.run()
    if name in DATASETS.names() or name in DATASETS.broken:
        _refuse_missing(name, data_root)
        for of_data in dataset_checks(name):
            yield of_data.name, of_data.run(data_root)


def _refuse_missing(name: str, data_root: Path) -> None:
    try:
        DATASETS.get(name)(data_root)
    except InputError:
        raise
    except Exception:  # a fault of the plugin, which its checks will name
        return
