"""Readers of the two shapes of MATLAB files that datasets come with."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.annotations import RESTORE
from wsolbench.errors import InputError

#: Reads a variable in a process of its own: on damaged bytes scipy's compiled reader may crash.
_READER = """
import pickle, sys
from scipy.io import loadmat
content = loadmat(sys.argv[1], squeeze_me=True, struct_as_record=False)
pickle.dump((sys.argv[2] in content, content.get(sys.argv[2])), sys.stdout.buffer)
"""


def read_cells(file: Path, name: str) -> list[str]:
    """Return a cell array of texts.

    Raises:
        InputError: when the file is none of MATLAB, or holds no such array.
    """
    found = np.atleast_1d(_variable(file, name)).ravel()
    return [_text(file, name, cell) for cell in found]


def read_structs(file: Path, name: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """Return the fields of an array of structures, which are found by name: their order varies.

    Raises:
        InputError: when the file is none of MATLAB, holds no such array, or a field is missing.
    """
    found = np.atleast_1d(_variable(file, name)).ravel()
    rows = []
    for number, struct in enumerate(found, start=1):
        lacking = [field for field in fields if not hasattr(struct, field)]
        if lacking:
            raise InputError(f"{file}: {name}({number}) has no field {lacking[0]}; {RESTORE}")
        rows.append({field: getattr(struct, field) for field in fields})
    return rows


def whole(file: Path, where: str, value: object, least: int, most: int) -> int:
    """Return a whole number of a range.

    Raises:
        InputError: when it is none of them.
    """
    finite = isinstance(value, int | float | np.number) and math.isfinite(value)
    fits = finite and value == int(value)  # type: ignore[call-overload]
    if not fits or not least <= int(value) <= most:  # type: ignore[call-overload]
        raise InputError(
            f"{file}: {where} is {value!r}, not a number from {least} to {most}; {RESTORE}"
        )
    return int(value)  # type: ignore[call-overload,no-any-return]


def _variable(file: Path, name: str) -> Any:
    try:
        file.open("rb").close()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}; {RESTORE}") from error
    command = [sys.executable, "-c", _READER, str(file), name]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise InputError(f"{file} is no MATLAB file that can be read; {RESTORE}")
    held, value = pickle.loads(done.stdout)
    if not held:
        raise InputError(f"{file} holds no '{name}'; {RESTORE}")
    return value


def _text(file: Path, name: str, cell: object) -> str:
    if not isinstance(cell, str):
        raise InputError(f"{file}: '{name}' holds {type(cell).__name__}, not texts; {RESTORE}")
    return str(cell)
