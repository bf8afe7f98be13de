"""What a method costs: operations by formula, speed by a clock that the test holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsolbench.cost import count_macs, count_parameters, localization_cost
from wsolbench.device import allow_tf32
from wsolbench.method import Method, MethodInfo, Options
from wsolbench.registry import METHODS
from wsolbench.types import Batch, Prediction

DEPTH, WIDTH, HEADS, PATCH, SIDE, CLASSES = 4, 32, 4, 8, 40, 5
GRID = (SIDE // PATCH) ** 2


def vit_macs(tokens: int) -> int:
    """Patch embedding and blocks of a plain vision transformer: matrix products only."""
    attention = 2 * tokens * tokens * WIDTH
    linear = tokens * (3 + 1 + 2 * 4) * WIDTH * WIDTH
    return GRID * 3 * PATCH**2 * WIDTH + DEPTH * (attention + linear)


@pytest.mark.parametrize(
    ("name", "tokens", "more"),
    [
        # three mask rows; the nine sums' logits
        ("sat", GRID + 2, 3 * (GRID + 2) * WIDTH + 9 * WIDTH * CLASSES),
        # a row of attention a block; logits; one class's map of the nine
        (
            "ts-cam",
            GRID + 1,
            DEPTH * (GRID + 1) * WIDTH + 9 * WIDTH * CLASSES + 9 * WIDTH * GRID,
        ),
    ],
)
def test_operations_are_those_of_the_formula(name: str, tokens: int, more: int) -> None:
    method: Any = METHODS.get(name)
    vit = VisionTransformer(
        img_size=SIDE,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
    )
    model = method(vit, CLASSES, method.Options())
    assert count_macs(model, SIDE) == vit_macs(tokens) + more
    assert next(model.parameters()).device.type == "cpu"
    frozen = sum(p.numel() for p in vit.blocks[0].parameters())
    for parameter in vit.blocks[0].parameters():
        parameter.requires_grad = False
    whole, trainable = count_parameters(model)
    assert whole - trainable == frozen


class Timed(Method):
    """Takes ten seconds when first asked, a quarter of a second later, and draws each time."""

    info = MethodInfo(title="Timed", paper="none", year=2000, trainable=False)

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 1, Options())
        self.calls, self.now = 0, 0.0

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        raise NotImplementedError

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        self.now += 0.25 if self.calls else 10.0
        self.calls += 1
        return Prediction(maps=torch.rand(len(image), 1, 1))


def test_the_first_time_is_not_counted_and_no_number_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = Timed()
    monkeypatch.setattr(
        "wsolbench.cost.time", type("Clock", (), {"perf_counter": lambda: method.now})
    )
    before = torch.get_rng_state()
    rate, memory = localization_cost(method, torch.zeros(6, 3, 2, 2), torch.zeros(6), bf16=False)
    assert (rate, method.calls) == (24.0, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert memory > 2**20


def test_fast_methods_are_asked_a_limited_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Timed()
    ticks = iter(x / 1000 for x in range(1000))
    monkeypatch.setattr(
        "wsolbench.cost.time", type("Clock", (), {"perf_counter": lambda: next(ticks)})
    )
    localization_cost(method, torch.zeros(1, 3, 2, 2), torch.zeros(1), bf16=False)
    assert method.calls == 21


def test_tf32_is_switched_for_products_and_convolutions() -> None:
    flags = []
    try:
        for allowed in (True, False):
            allow_tf32(allowed)
            flags.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
    finally:
        allow_tf32(False)
    assert flags == [(True, True), (False, False)]
