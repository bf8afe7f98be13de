"""Fixtures that all tests share, and the account of how many used the reference data."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from miniatures import MAKERS
from trees import make_cub

from wsolbench.registry import DATASETS, METHODS

_VARIABLE = "WSOLBENCH_SHARED"
_MARK = ["reference data", True]


@pytest.fixture(scope="session", autouse=True)
def plugins() -> None:
    """Find the project's plugins before a test replaces the table that they would go into."""
    METHODS.names()
    DATASETS.names()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference outputs, real photographs and weights, which lies beside the project.

    Tests skip where it is not set. Where it is set, whatever is missing below it is a failure: a
    wrong path must not look like a pass.
    """
    value = os.environ.get(_VARIABLE)
    if not value:
        pytest.skip(f"{_VARIABLE} is not set: no reference data to compare with")
    path = Path(value)
    if not path.is_dir():
        pytest.fail(f"{_VARIABLE} is set to {value}, which is not a folder", pytrace=False)
    return path


@pytest.fixture(scope="session")
def tiny_cub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root with a ``CUB_200_2011`` of 3 classes x (8 train + 4 test); not to be written to."""
    return make_cub(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root for datasets that draw themselves, once for all tests."""
    return tmp_path_factory.mktemp("drawn")


def _tiny(name: str) -> Callable[[pytest.TempPathFactory], Path]:
    def make(tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp(name)
        MAKERS[name](root)
        return root

    return pytest.fixture(scope="session")(make)


tiny_ilsvrc = _tiny("ilsvrc")
tiny_openimages30k = _tiny("openimages30k")
tiny_tiny_imagenet = _tiny("tiny-imagenet")
tiny_stanford_dogs = _tiny("stanford-dogs")
tiny_stanford_cars = _tiny("stanford-cars")
tiny_fgvc_aircraft = _tiny("fgvc-aircraft")
tiny_oxford_pet = _tiny("oxford-pet")
tiny_folder = _tiny("folder")


@pytest.fixture
def tiny_toybirds(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data root where the drawn birds are few, in this test, in place of more than a thousand."""
    from few_birds import FEW

    monkeypatch.setattr(DATASETS, "_plugins", {**DATASETS._plugins, **FEW})
    return drawn


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note on the test's report that it asks for the reference data."""
    if "shared" in getattr(item, "fixturenames", ()):
        item.user_properties.append((str(_MARK[0]), _MARK[1]))


# Outermost wrapper: what it writes after the yield comes below pytest's own summaries.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """Say last how many tests used the reference data, or were skipped for want of it."""
    yield
    nodes = {
        report.nodeid
        for reports in terminalreporter.stats.values()
        for report in reports
        if _MARK in map(list, getattr(report, "user_properties", ()))
    }
    tests = f"{len(nodes)} test{'' if len(nodes) == 1 else 's'}"
    if os.environ.get(_VARIABLE):
        terminalreporter.write_line(f"reference data: used by {tests}")
    else:
        terminalreporter.write_line(f"reference data: not set ({_VARIABLE}), {tests} skipped")
