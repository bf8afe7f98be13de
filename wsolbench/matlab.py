"""Readers of the two shapes of MATLAB files that datasets come with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.annotations import RESTORE
from wsolbench.errors import InputError


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
    from scipy.io import loadmat

    try:
        content = loadmat(str(file), squeeze_me=True, struct_as_record=False)
        return content[name]
    except KeyError as error:
        raise InputError(f"{file} holds no '{name}'; {RESTORE}") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}; {RESTORE}") from error
    except Exception as error:  # scipy raises whatever its bytes lead it to
        raise InputError(f"{file} is no MATLAB file that can be read; {RESTORE}") from error


def _text(file: Path, name: str, cell: object) -> str:
    if not isinstance(cell, str):
        raise InputError(f"{file}: '{name}' holds {type(cell).__name__}, not texts; {RESTORE}")
    return str(cell)
