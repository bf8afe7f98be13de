"""Plugins are found however the project is put on a machine.

The core is copied and given plugins that import nothing heavy, so that a process takes a fraction
of a second; one test at the end asks the real wheel for the real plugins.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

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


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Run a command outside the checkout; return what it prints."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "WSOLBENCH_PATH")}
    done = subprocess.run(
        command, cwd=cwd, env=inherited | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_project(target: Path) -> Path:
    """Copy what a build needs."""
    junk = shutil.ignore_patterns("__pycache__")
    for folder in ("wsolbench", "methods", "datasets", "results/reported"):
        shutil.copytree(ROOT / folder, target / folder, ignore=junk)
    for file in ("pyproject.toml", "run_benchmark.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / file, target / file)
    return target


def light_project(target: Path) -> Path:
    """Copy the core, with one light method and dataset in place of the real ones."""
    copy_project(target)
    for folder in ("methods", "datasets"):
        shutil.rmtree(target / folder)
    write(target / "methods" / "own_one.py", METHOD.format(name="own-one"))
    write(target / "methods" / "own_one.yaml", "from: own\n")
    write(target / "datasets" / "own_data.py", DATASET.format(name="own-data"))
    return target


def python_with(folder: Path, *install: str | Path) -> Path:
    """Make an environment with the dependencies of this one and one install; return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    write(Path(site.strip()) / "dependencies.pth", sysconfig.get_path("purelib"))
    # This environment may hold the project too; its install is neither enough nor to be removed.
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    run(sys.executable, "-m", "pip", "--python", python, "install", *flags, *install, cwd=folder)
    return python


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
