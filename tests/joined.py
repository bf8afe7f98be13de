"""What a test has each of several processes do."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsolbench import processes
from wsolbench.cli import main
from wsolbench.registry import METHODS
from wsolbench.types import Batch


def command(arguments: list[str]) -> int:
    """Run the command line."""
    return main(arguments)


def spoken_command(said: Path, arguments: list[str]) -> int:
    """Run the command line, and add what it says to a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    return main(arguments)


def batch_losses(images: int) -> int:
    """Compare losses over a batch of which each process has a part with those of one process."""
    processes.join(torch.device("cpu"))
    whole, marked = torch.randn(images, 4, generator=torch.manual_seed(0)), torch.zeros(images)
    marked[::2] = 1  # the second process has none of them
    mine, borrowed = processes.own_part(range(images))
    layer = torch.nn.Linear(4, 1)
    processes.follow_first(layer.state_dict().values())
    for joint in (True, False):
        part = Batch(whole[mine], marked[mine].long(), ("",) * len(mine), None, images, borrowed)
        part = replace(part, joint=joint)
        value = _losses(layer, part)
        layer.zero_grad()
        value.backward()
        processes.join_gradients(layer, part.share)
        joined = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
        if joint:
            alone = _losses(layer, Batch(whole, marked.long(), ("",) * images))
            expected = torch.autograd.grad(alone, list(layer.parameters()))
            assert torch.allclose(value, alone, atol=1e-6)
            assert all(map(partial(torch.allclose, atol=1e-6), joined, expected))
    return 0


def _losses(layer: torch.nn.Module, batch: Batch) -> Tensor:
    each = layer(batch.image)[:, 0].square()
    some = processes.batch_ratio((each * batch.label).sum(), batch.label.sum(), batch)
    return some + (processes.batch_mean(each, batch) - 0.1).abs()


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
