"""What a test has each of several processes do."""

from __future__ import annotations

import os
import signal
from typing import Any

from wsolbench import processes
from wsolbench.cli import main
from wsolbench.registry import METHODS


def command(arguments: list[str]) -> int:
    """Run the command line."""
    return main(arguments)


def interrupted_command(method: str, step: int, arguments: list[str]) -> int:
    """Run the command line, and send the second process alone a signal within a step."""
    cls: Any = METHODS.get(method)
    real = cls.training_step
    steps = iter(range(10**6))

    def training_step(self: Any, batch: Any, progress: float) -> Any:
        if next(steps) == step and processes.number() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, progress)

    cls.training_step = training_step
    return main(arguments)
