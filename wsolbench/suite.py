"""Suites: named sets of runs, as data. Those that come with the package lie in ``suites/``."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsolbench.errors import InputError, did_you_mean, one_line
from wsolbench.request import Request
from wsolbench.validation import first_problem, validation_line

FOLDER: Traversable = resources.files("wsolbench") / "suites"
#: what `run` does when it is told nothing
DEFAULT = "default"
_SUFFIXES = (".yaml", ".yml")


class Suite(BaseModel):
    """Runs that belong together.

    Attributes:
        title: what they are for, in one line.
        runs: requests, whose keys are the options of ``run`` with ``_`` for ``-``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    runs: tuple[Request, ...] = Field(min_length=1)


def suite_names() -> list[str]:
    """Names of the suites that come with the package, sorted."""
    return sorted(
        f.name.removesuffix(".yaml") for f in FOLDER.iterdir() if f.name.endswith(".yaml")
    )


def load_suite(name: str) -> Suite:
    """Read a suite.

    Args:
        name: of a suite that comes with the package, or a file that ends in ``.yaml``.

    Raises:
        InputError: when there is none, or it is no suite; the line names the first wrong field.
    """
    text = _text(name)
    try:
        return Suite.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"suite '{name}': not YAML: {one_line(error)}") from error
    except ValidationError as error:
        inside = len(first_problem(error)["loc"]) > 1
        known = list((Request if inside else Suite).model_fields)
        raise InputError(f"suite '{name}': {validation_line(error, known, 'field')}") from error


def _text(name: str) -> str:
    if not name.endswith(_SUFFIXES):
        if name not in suite_names():
            raise InputError(f"unknown suite '{name}'{did_you_mean(name, suite_names())}")
        return (FOLDER / f"{name}.yaml").read_text("utf-8")
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"suite '{name}' cannot be read: {error}") from error
