"""A benchmark for weakly supervised object localization.

Methods and datasets are plugins. They live beside this package, in ``methods/`` and ``datasets/``
of a checkout, and are imported as ``wsolbench.methods.*`` and ``wsolbench.datasets.*``, never as
top-level packages: others own those names (Hugging Face's ``datasets``). Both are namespace
packages, so that any number of folders can contribute to them; ``__path__`` says which.
"""

from __future__ import annotations

import os
from pathlib import Path

__version__ = "0.1.0"

PLUGIN_FOLDERS = ("methods", "datasets")


def user_folders() -> list[Path]:
    """Folders that ``WSOLBENCH_PATH`` names, absolute, in order; they need not exist."""
    entries = os.environ.get("WSOLBENCH_PATH", "").split(os.pathsep)
    return [Path(entry).expanduser().absolute() for entry in entries if entry.strip()]


def checkout() -> Path | None:
    """Root of the checkout that this package runs from, or None when it is installed."""
    root = Path(__file__).resolve().parent.parent
    # In site-packages the parent may hold somebody else's `datasets`: only a checkout has this
    # file at its root.
    return root if (root / "run_benchmark.py").is_file() else None


def _plugin_roots() -> list[Path]:
    root = checkout()
    return ([] if root is None else [root]) + user_folders()


__path__.extend(str(folder) for folder in _plugin_roots())
