"""Plugins are found however the project is put on a machine.

The core is copied and given plugins that import nothing heavy, so that a process takes a fraction
of a second; one test at the end asks the real wheel for the real plugins.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT, copy_project, python_with, run, write

METHOD = """
from wsolbench.registry import register_method

@register_method({name!r})
class Plugin:
    pass
"""
DATASET = METHOD.replace("method", "dataset")

# Calling a plugin in a spawned process sends the class there and its instance back, by name.
PROBE = """
import json, multiprocessing, sys
import datasets
from wsolbench.registry import DATASETS, METHODS, resource_text
import wsolbench

methods = {name: METHODS.get(name) for name in METHODS.names()}
with multiprocessing.get_context("spawn").Pool(1) as pool:
    alike = {name: type(pool.apply(cls)) is cls for name, cls in methods.items()}
print(json.dumps({
    "core": wsolbench.__file__,
    "files": {name: sys.modules[cls.__module__].__file__ for name, cls in methods.items()},
    "texts": {name: resource_text(cls) for name, cls in methods.items()},
    "spawned": alike,
    "datasets": DATASETS.names(),
    "broken": METHODS.broken | DATASETS.broken,
    "foreign": datasets.WHOSE,
}))
"""

REAL = """
import json
from wsolbench.registry import DATASETS, METHODS
print(json.dumps({"methods": METHODS.names(), "datasets": DATASETS.names(),
                  "broken": METHODS.broken | DATASETS.broken}))
"""


def light_project(target: Path) -> Path:
    """Copy the core, with one light method and dataset in place of the real ones."""
    copy_project(target)
    for folder in ("methods", "datasets"):
        shutil.rmtree(target / folder)
    write(target / "methods" / "own_one.py", METHOD.format(name="own-one"))
    write(target / "methods" / "own_one.yaml", "from: own\n")
    write(target / "datasets" / "own_data.py", DATASET.format(name="own-data"))
    return target


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make a user's folder, a third party's package and somebody's ``datasets``; return the env."""
    folder = tmp_path_factory.mktemp("others")
    write(folder / "user" / "methods" / "user_one.py", METHOD.format(name="user-one"))
    write(folder / "user" / "methods" / "user_one.yaml", "from: user\n")
    write(folder / "user" / "datasets" / "user_data.py", DATASET.format(name="user-data"))
    write(folder / "site" / "third_party.py", METHOD.format(name="third-one"))
    info = folder / "site" / "third_party-1.0.dist-info"
    write(info / "METADATA", "Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    write(info / "entry_points.txt", "[wsolbench.methods]\nthird-one = third_party\n")
    write(folder / "site" / "datasets" / "__init__.py", "WHOSE = 'somebody else'\n")
    return {"WSOLBENCH_PATH": str(folder / "user"), "PYTHONPATH": str(folder / "site")}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return light_project(tmp_path_factory.mktemp("light") / "project")


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return python_with(folder / "env", light_project(folder / "project"))


def check_found(found: dict[str, Any], others: dict[str, str], home: Path) -> None:
    """Assert that all plugins were found, and those of the project below ``home``."""
    user = Path(others["WSOLBENCH_PATH"])
    third = Path(others["PYTHONPATH"])
    homes = {"own-one": home, "user-one": user, "third-one": third}
    assert found["broken"] == {}
    assert found["files"].keys() == homes.keys()
    assert all(Path(found["files"][name]).is_relative_to(homes[name]) for name in homes)
    assert Path(found["core"]).is_relative_to(home)
    assert found["texts"] == {
        "own-one": "from: own\n",
        "user-one": "from: user\n",
        "third-one": None,
    }
    assert found["spawned"] == dict.fromkeys(homes, True)
    assert found["datasets"] == ["own-data", "user-data"]
    assert found["foreign"] == "somebody else"


def test_wheel(wheel_python: Path, others: dict[str, str], tmp_path: Path) -> None:
    found = json.loads(run(wheel_python, "-c", PROBE, cwd=tmp_path, **others))
    check_found(found, others, wheel_python.parents[1])


def test_editable_install(project: Path, others: dict[str, str], tmp_path: Path) -> None:
    python = python_with(tmp_path / "env", "--editable", project)
    found = json.loads(run(python, "-c", PROBE, cwd=tmp_path, **others))
    check_found(found, others, project)


def test_checkout_without_install(project: Path, others: dict[str, str]) -> None:
    found = json.loads(run(sys.executable, "-c", PROBE, cwd=project, **others))
    check_found(found, others, project)


def test_checkout_goes_before_an_installed_wheel(
    wheel_python: Path, project: Path, others: dict[str, str]
) -> None:
    found = json.loads(run(wheel_python, "-c", PROBE, cwd=project, **others))
    check_found(found, others, project)


def test_the_real_wheel_holds_every_plugin(tmp_path: Path) -> None:
    python = python_with(tmp_path / "env", copy_project(tmp_path / "project"))
    assert (python.parent / "wsolbench").is_file()
    found = json.loads(run(python, "-c", REAL, cwd=tmp_path))
    assert found["broken"] == {}
    for kind in ("methods", "datasets"):
        files = (ROOT / kind).glob("[!_]*.py")
        assert {file.stem.replace("_", "-") for file in files} <= set(found[kind])
