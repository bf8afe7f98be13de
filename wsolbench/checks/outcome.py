"""What a check says of a plugin, and how a check is called in a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, ParamSpec

from wsolbench.errors import one_line

P = ParamSpec("P")


class Status(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    KNOWN = "known failure"
    INAPPLICABLE = "does not apply"


@dataclass(frozen=True)
class Outcome:
    """Result of one check of one plugin.

    Attributes:
        status: how it ended.
        reason: why, in one line; empty when it passed.
        error: what was raised, for a traceback.
    """

    status: Status
    reason: str = ""
    error: BaseException | None = field(default=None, compare=False, repr=False)


class FailedError(AssertionError):
    """A check found a fault; the message says which, in one line."""


class InapplicableError(Exception):
    """A check has nothing to look at in this plugin; the message says why."""


@dataclass(frozen=True)
class Check(Generic[P]):
    """One check of one plugin.

    Calling it in a test fails, skips or marks the test as an expected failure; ``run`` returns the
    :class:`Outcome`. Both take what the plugin needs: nothing for a method, the data root for a
    dataset.

    Attributes:
        plugin: name of the method or dataset.
        name: name of the check, which ``known_failures`` uses too.
        run: does it.
    """

    plugin: str
    name: str
    run: Callable[P, Outcome]

    def __str__(self) -> str:
        return f"{self.plugin}-{self.name}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Run as a test of pytest."""
        import pytest  # whoever calls this has it; whoever runs a benchmark need not

        outcome = self.run(*args, **kwargs)
        if outcome.status is Status.FAILED:
            raise FailedError(outcome.reason) from outcome.error
        if outcome.status is Status.KNOWN:
            pytest.xfail(outcome.reason)
        if outcome.status is Status.INAPPLICABLE:
            pytest.skip(outcome.reason)


def judge(check: Callable[[], None], declared: str | None) -> Outcome:
    """Run a check and say how it ended.

    Args:
        check: raises what it finds.
        declared: reason of a declared failure, or None.
    """
    outcome = _observe(check)
    if declared is None:
        return outcome
    if outcome.status is Status.FAILED:
        return Outcome(Status.KNOWN, declared, outcome.error)
    but = f"known_failures declares this ('{declared}') but the check {outcome.status}"
    return Outcome(Status.FAILED, f"{but}; remove the declaration")


def _observe(check: Callable[[], None]) -> Outcome:
    try:
        check()
    except InapplicableError as error:
        return Outcome(Status.INAPPLICABLE, one_line(error))
    except FailedError as error:
        return Outcome(Status.FAILED, one_line(error), error)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        return Outcome(Status.FAILED, f"{type(error).__name__}: {one_line(error)}", error)
    return Outcome(Status.PASSED)


def require(condition: bool, fault: str) -> None:
    """Raise :class:`FailedError` with ``fault`` unless the condition holds."""
    if not condition:
        raise FailedError(fault)


def name_of(check: Callable[..., None]) -> str:
    """The name of a check: that of its function, with ``-`` for ``_``."""
    return check.__name__.replace("_", "-")


def check_declared(known: Mapping[str, str], checks: Collection[str]) -> None:
    """Require that declared failures name checks and give reasons."""
    for name, reason in known.items():
        require(name in checks, f"known_failures names no check: '{name}'")
        require(bool(reason.strip()), f"known_failures gives no reason for '{name}'")


def check_texts(plugin: Any, names: Collection[str]) -> None:
    """Require that attributes are texts that say something."""
    for name in names:
        value = getattr(plugin, name, None)
        require(isinstance(value, str) and bool(value.strip()), f"{name} is no text: {value!r}")
