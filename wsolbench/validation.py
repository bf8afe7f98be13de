"""One line for what pydantic or a parser of text found wrong."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wsolbench.errors import did_you_mean


def first_problem(error: ValidationError) -> ErrorDetails:
    """The problem to tell first: a misspelt field also makes the right one missing."""
    problems = error.errors()
    return next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])


def validation_line(error: ValidationError, known: Sequence[str], what: str) -> str:
    """Say the first problem of a pydantic error in one line, with the nearest known field."""
    first = first_problem(error)
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        leaf = str(first["loc"][-1])
        return f"unknown {what} '{path}'{did_you_mean(leaf, known)}"
    return f"{what} '{path}': {first['msg']}"
