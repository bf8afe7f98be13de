"""torch.compile: the same numbers from the same seed, and one line where it cannot be done."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.backends.registry import register_backend

from wsolbench.compiled import check_compiler, compile_method
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.method import Method, MethodInfo, Options, class_or_predicted
from wsolbench.predictions import predict
from wsolbench.types import Batch, Prediction

CPU = torch.device("cpu")


class Toy(Method):
    """A network with all that a compiler may get wrong: random numbers, statistics, progress."""

    info = MethodInfo(title="Toy", paper="none", year=2000)

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 3, Options())
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU())
        self.fc = nn.Linear(4, 3)

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        features = F.dropout(self.trunk(batch.image).mean((2, 3)), 0.5, self.training)
        loss = F.cross_entropy(self.fc(features), batch.label)
        return {"loss": loss * (2 if progress > 0.5 else 1) + progress}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        features = self.trunk(image)
        logits = self.fc(features.mean((2, 3)))
        weight = self.fc.weight[class_or_predicted(logits, label)]
        return Prediction(maps=torch.einsum("bdhw,bd->bhw", features, weight), logits=logits)


@pytest.fixture
def twins() -> tuple[Toy, Toy]:
    torch.manual_seed(0)
    toy = Toy()
    return toy, copy.deepcopy(toy)


def batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(size)
    image = torch.randn(size, 3, 8, 8, generator=generator)
    return Batch(image, torch.arange(size) % 3, tuple(f"{i}" for i in range(size)))


def after_step(toy: Method, size: int, progress: float) -> list[Tensor]:
    """Loss, gradients and statistics of one training step from a seed."""
    torch.manual_seed(1)
    toy.zero_grad()
    loss = toy.train().training_step(batch(size), progress)["loss"]
    loss.backward()
    gradients = [p.grad.clone() for p in toy.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *(b.clone() for b in toy.buffers())]


def test_machine_code_draws_and_says_what_python_does(twins: tuple[Toy, Toy]) -> None:
    plain, fast = twins
    compile_method(fast)
    for a, b in zip(after_step(plain, 4, 0.75), after_step(fast, 4, 0.75), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    known, found = (predict(toy.eval(), batch(4).image, batch(4).label) for toy in twins)
    torch.testing.assert_close(known.maps, found.maps)
    torch.testing.assert_close(known.logits, found.logits)


def test_a_training_needs_a_graph_a_size_and_branch_not_a_step(twins: tuple[Toy, Toy]) -> None:
    plain, fast = twins
    compile_method(fast, backend="eager")
    graphs = []
    for step in range(60):
        torch._dynamo.utils.counters.clear()
        size, progress = 3 if step % 10 == 9 else 4, step / 60  # a smaller batch ends an epoch
        known, found = (after_step(toy, size, progress) for toy in (plain, fast))
        torch.testing.assert_close(found, known)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 4 <= sum(graphs) <= 8
    assert sum(graphs[40:]) == 0


def test_what_cannot_be_compiled_is_one_line(twins: tuple[Toy, Toy]) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such\ninstruction")

    register_backend(broken, name="broken-of-tests")
    compile_method(twins[1], backend="broken-of-tests")
    with pytest.raises(WsolbenchError) as raised:
        predict(twins[1].eval(), batch(2).image, None)
    said = str(raised.value)
    assert said.startswith("torch.compile cannot take localize of Toy (")
    assert "no such instruction" in said
    assert said.endswith("leave out --compile")
    assert "\n" not in said


def test_a_missing_compiler_shows_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: Any) -> Any:
        def call(*args: Any) -> Any:
            raise RuntimeError("no C++ compiler\nfound")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    check_compiler.cache_clear()
    with pytest.raises(InputError, match=r"^torch.compile does not work here \(RuntimeError: no C"):
        check_compiler(CPU)


def test_errors_of_the_method_stay_what_they_are(
    twins: tuple[Toy, Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Toy, image: Tensor, label: Tensor | None) -> Prediction:
        raise InputError("images of another size")

    monkeypatch.setattr(Toy, "localize", refuse)
    compile_method(twins[1], backend="eager")
    with pytest.raises(InputError, match=r"^images of another size$"):
        twins[1].localize(batch(1).image, None)
