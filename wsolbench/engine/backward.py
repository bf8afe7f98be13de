"""Backward passes that give the same gradients each time, where a model allows it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

log = logging.getLogger("wsolbench")


class Backward:
    """The backward passes of a training.

    Fused attention has repeatable kernels on a GPU, and torch takes them only where operations
    without any are refused. So these are refused, unless the first pass meets one: then all passes
    go without, and a warning names it.

    Args:
        optimizer: has the parameters that get gradients.
        device: on a processor all kernels in use are repeatable as they are.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self._strict = device.type != "cpu"
        self._tried = False

    def __call__(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those that the parameters have.

        The first pass of all begins without any: where it must be made again, they are dropped.
        """
        if self._strict:
            self._strict = self._strictly(loss)
        if not self._strict:
            loss.backward()

    def _strictly(self, loss: Tensor) -> bool:
        """Whether the pass was possible with repeatable kernels alone."""
        first, self._tried = not self._tried, True
        try:
            with _refusing():
                loss.backward(retain_graph=first)
        except RuntimeError as error:
            if not first or "deterministic" not in str(error):
                raise
            reason = str(error).partition(",")[0].partition(";")[0]
            log.warning("two trainings on this device may differ in rounding: %s", reason)
            self._optimizer.zero_grad(set_to_none=True)
            return False
        return True


@contextmanager
def _refusing() -> Iterator[None]:
    """Refuse operations that have no repeatable kernel, about which there is else a warning."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
