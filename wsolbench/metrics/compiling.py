"""Kernels compiled once a machine: kept on disk, run without the GIL, announced the first time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event

log = logging.getLogger("wsolbench")

_F = TypeVar("_F", bound=Callable[..., Any])


class _Announcement(event.Listener):
    """Says once that kernels are being compiled: the first call ever takes its time."""

    def __init__(self) -> None:
        self.due = True

    def on_start(self, event: Any) -> None:
        if self.due and event.data["dispatcher"].py_func.__module__.startswith(f"{__package__}."):
            self.due = False
            log.info("compiling scoring kernels, once")

    def on_end(self, event: Any) -> None:
        pass


# Loading what an earlier process compiled is no such event.
event.register("numba:compile", _Announcement())


def compiled(function: _F) -> _F:
    """Compile on the first call, without the GIL, and keep the code on disk if there is a place."""
    try:
        kernel: Any = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither beside its file nor in the user's cache folder
        kernel = njit(nogil=True)(function)
    return cast(_F, kernel)
