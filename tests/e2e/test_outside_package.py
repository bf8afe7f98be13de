"""A package of somebody else: its plugins come in by entry points and lack nothing.

The package is built and installed by pip, as its users would, beside the checkout and into an
environment of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import ROOT, python_with, run, write

from wsolbench.scaffold import new_method

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "outside"
version = "1.0"
dependencies = ["wsolbench"]

[project.entry-points."wsolbench.methods"]
outside-method = "outside.outside_method"

[project.entry-points."wsolbench.datasets"]
outside-data = "outside.data"

[tool.setuptools]
packages = ["outside"]

[tool.setuptools.package-data]
outside = ["*.yaml"]
"""

DATA = '''
"""Squares and bars, as ``outside.json`` lists them."""

import json

from wsolbench.dataset import Dataset, Sample
from wsolbench.errors import InputError
from wsolbench.registry import register_dataset


@register_dataset("outside-data")
class OutsideData(Dataset):
    title = "Outside"
    layout = "outside.json, *.png"

    def __init__(self, root, holdout=0):
        super().__init__(root, holdout)
        file = root / "outside.json"
        if not file.is_file():
            raise InputError(f"{file} does not exist; make it")
        self.rows = json.loads(file.read_text())

    @property
    def class_names(self):
        return ("square", "bar")

    def official(self, split):
        return [
            Sample(row["name"], self.root / row["name"], row["label"], (tuple(row["box"]),))
            for row in self.rows
            if row["split"] == split
        ]
'''

# What the package's author has among the tests.
TESTS = """
import pytest
from wsolbench.checks import dataset_checks, method_checks

@pytest.mark.parametrize("check", method_checks("outside-method"), ids=str)
def test_method(check):
    check()

@pytest.mark.parametrize("check", dataset_checks("outside-data"), ids=str)
def test_dataset(check, pytestconfig):
    check(pytestconfig.rootpath / "data")
"""


def draw(root: Path) -> None:
    """Write ten training and three test images of either class, and their list."""
    rng = np.random.default_rng(0)
    root.mkdir()
    rows = []
    for number in range(26):
        label, x, y = number % 2, int(rng.integers(5, 20)), int(rng.integers(5, 20))
        width = 15 + 20 * label
        pixels = rng.integers(0, 100, (60, 60, 3), np.uint8)
        pixels[y : y + 15, x : x + width] = 200
        Image.fromarray(pixels).save(root / f"{number}.png")
        split = "train" if number < 20 else "test"
        box = (x, y, x + width, y + 15)
        rows.append({"name": f"{number}.png", "label": label, "box": box, "split": split})
    write(root / "outside.json", json.dumps(rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an environment ``env``, ``data`` and the package's own tests."""
    folder = tmp_path_factory.mktemp("outside")
    write(folder / "package" / "pyproject.toml", PYPROJECT)
    write(folder / "package" / "outside" / "__init__.py", "")
    write(folder / "package" / "outside" / "data.py", DATA)
    new_method("outside-method", folder / "package" / "outside")
    python_with(folder / "env", folder / "package")
    draw(folder / "data")
    write(folder / "pytest.ini", "[pytest]\n")
    write(folder / "test_outside.py", TESTS)
    return folder


def python(place: Path, *words: str | Path) -> str:
    return run(place / "env" / "bin" / "python", *words, cwd=place, PYTHONPATH=str(ROOT))


def wsolbench(place: Path, *words: str) -> str:
    return python(place, ROOT / "run_benchmark.py", *words)


def test_its_plugins_are_listed(place: Path) -> None:
    names = {tuple(line.split()[:2]) for line in wsolbench(place, "list").splitlines()}
    assert names >= {("method", "outside-method"), ("dataset", "outside-data")}


def test_its_own_tests_are_the_kit(place: Path) -> None:
    said = python(place, "-m", "pytest", "-v", "-p", "no:cacheprovider")
    assert "test_method[outside-method-gradients] PASSED" in said
    assert "test_method[outside-method-patch-sizes] SKIPPED" in said
    assert "test_dataset[outside-data-stable-order] PASSED" in said


def test_it_passes_the_command_and_gets_its_row(place: Path) -> None:
    for name in ("outside-method", "outside-data"):
        assert "failed" not in wsolbench(place, "check", name, "--data-root", "data")
    small = ["--set", "pretrained=false", "image_size=64", "resize=72", "--epochs", "1"]
    names = ["--method", "outside-method", "--dataset", "outside-data", "--data-root", "data"]
    wsolbench(place, "run", *names, "--backbone", "test_resnet", "--batch-size", "4", *small)
    board = (place / "results" / "leaderboard.md").read_text("utf-8")
    assert "### Outside (2 classes, 6 test images)" in board
    (row,) = [line for line in board.splitlines() if line.startswith("| 1 ")]
    assert row.split("|")[2].strip() == "Outside method"
