"""Copies of the project, environments with them, and commands run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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
