"""Backward passes: repeatable kernels where all have one, a warning where one has none."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsolbench.engine.backward import Backward


class Unrepeatable(torch.autograd.Function):
    """Its backward pass calls an operation that has no repeatable kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0].clone().put_(torch.tensor([0]), gradient[0].flatten()[:1])


class Asked(torch.autograd.Function):
    """Notes whether its backward pass is in strict mode."""

    modes: list[bool]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        Asked.modes.append(not torch.is_deterministic_algorithms_warn_only_enabled())
        return gradient[0]


@pytest.fixture(autouse=True)
def lenient() -> Any:
    torch.use_deterministic_algorithms(True, warn_only=True)
    Asked.modes = []
    yield
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)


def gradients(layer: nn.Linear, device: str, function: Any, steps: int = 3) -> list[Tensor]:
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    backward = Backward(optimizer, torch.device(device))
    found = []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        backward(function.apply(layer(torch.full((2, 3), 1.0 + step))).square().sum())
        assert layer.weight.grad is not None
        found.append(layer.weight.grad.clone())
    return found


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_only_an_accelerator_needs_the_strict_mode(device: str) -> None:
    layer = nn.Linear(3, 1)
    plain = gradients(layer, "cpu", Asked)
    Asked.modes = []
    assert all(map(torch.equal, gradients(layer, device, Asked), plain))
    assert Asked.modes == [device == "cuda"] * 3


@pytest.mark.filterwarnings("ignore:put_ does not have a deterministic")
def test_what_has_no_repeatable_kernel_is_named_once_and_trains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = nn.Linear(3, 1)
    plain = gradients(layer, "cpu", Unrepeatable)
    with caplog.at_level(logging.WARNING, "wsolbench"):
        assert all(map(torch.equal, gradients(layer, "cuda", Unrepeatable), plain))
    (record,) = caplog.records
    assert "put_" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_other_errors_are_not_taken_for_it() -> None:
    layer = nn.Linear(3, 1)
    backward = Backward(torch.optim.SGD(layer.parameters(), 0.1), torch.device("cuda"))
    with pytest.raises(RuntimeError, match="scalar outputs"):
        backward(layer(torch.zeros(2, 3)))
