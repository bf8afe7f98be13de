"""Every registered plugin goes through the conformance kit."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsolbench.checks import Check, dataset_checks, method_checks
from wsolbench.registry import DATASETS, METHODS

OF_METHODS = [check for name in METHODS.names() for check in method_checks(name)]
OF_DATASETS = [check for name in DATASETS.names() for check in dataset_checks(name)]


@pytest.mark.parametrize("check", OF_METHODS, ids=str)
def test_method(check: Check[[]]) -> None:
    check()


@pytest.mark.parametrize("check", OF_DATASETS, ids=str)
def test_dataset(check: Check[[Path]], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A file ``my_data.py`` has a fixture ``tiny_my_data``, or its datasets need nothing."""
    module = DATASETS.get(check.plugin).__module__
    fixture = f"tiny_{module.rpartition('.')[2]}"
    try:
        root = request.getfixturevalue(fixture)
    except pytest.FixtureLookupError:
        root = tmp_path
    check(root)


def test_every_plugin_can_be_loaded() -> None:
    assert METHODS.broken == {}
    assert DATASETS.broken == {}
    assert OF_METHODS
    assert OF_DATASETS
