"""Signals that ask a process to stop, taken note of where work can be put away first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: seconds within which two signals are one
TOGETHER = 1.0


class StoppedError(KeyboardInterrupt):
    """A signal asked the process to stop; the text says what was put away, if anything.

    Like Ctrl-C no ``Exception``: code that handles errors of its own must not take it for one.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class StopRequest:
    """Whether SIGTERM or Ctrl-C came since the block was entered; one more acts at once.

    What comes within :data:`TOGETHER` of the first is taken for the same: where a scheduler signals
    every process of a job, the launcher passes its own on to processes that have theirs.

    Attributes:
        signal: number of the signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._first = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._former = _handle(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            if time.monotonic() - self._first > TOGETHER:
                raise StoppedError(number)
            return
        self.signal, self._first = number, time.monotonic()
        # not through a stream, whose lock the interrupted code may hold
        os.write(2, b"\nstopping after this step; once more stops at once\n")


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block SIGTERM raises :class:`StoppedError`, as Ctrl-C does, and cleans up."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    former = _handle(stop)
    try:
        yield
    finally:
        _restore(former)


def _handle(handler: Any) -> dict[int, Any]:
    """Install a handler, but where a signal is ignored, as Ctrl-C is by what runs under nohup."""
    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main thread may, and it is the one that is interrupted
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def _restore(former: dict[int, Any]) -> None:
    for number, handler in former.items():
        signal.signal(number, handler)
    former.clear()
