"""Errors that a user can act on: one line that says what to do, and an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: names that an error lists
LISTED = 30


class WsolbenchError(Exception):
    """Something went wrong in a run (NaN loss, full disk): one line, exit code 1."""

    exit_code = 1


class InputError(WsolbenchError):
    """What the user gave cannot be used (unknown name, missing folder): one line, exit code 2."""

    exit_code = 2


def one_line(what: object, most: int | None = None) -> str:
    """Return a text or the message of an error without line breaks, cut at ``most`` characters."""
    return " ".join(str(what).split())[:most]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of ``known``, or the list if it is short."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = [f"and {len(choices) - LISTED} more"] if len(choices) > LISTED else []
    return f"; known: {', '.join([*choices[:LISTED], *more]) or 'none'}"
