"""Learning rates over a training, and optimisers as recipes name them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wsolbench.engine.schedule import make_optimizer, rate_factor
from wsolbench.recipe import Optim, Schedule


def factors(schedule: Schedule, epochs: int) -> list[float]:
    return [rate_factor(schedule, 1.0, e, (e - 1) / epochs) for e in range(1, epochs + 1)]


def test_step_falls_at_every_multiple_of_any_entry() -> None:
    got = factors(Schedule(name="step", every=(10, 12), gamma=0.5), 60)
    falls = [e for e in range(2, 61) if got[e - 1] < got[e - 2]]
    assert falls == [10, 12, 20, 24, 30, 36, 40, 48, 50, 60]
    # 60 is a multiple of both and falls once
    assert got[59] == got[58] * 0.5
    assert got[8] == 1.0


def test_step_of_thirty_falls_once_more_in_the_last_of_sixty_epochs() -> None:
    got = factors(Schedule(name="step", every=(30,), gamma=0.1), 60)
    assert got[28:30] == pytest.approx([1, 0.1])
    assert got[58:60] == pytest.approx([0.1, 0.01])


def test_step_of_thirty_never_falls_in_fifteen_epochs() -> None:
    assert set(factors(Schedule(name="step", every=(30,)), 15)) == {1.0}


def test_milestones_fall_once_each() -> None:
    got = factors(Schedule(name="milestones", at=(10, 12), gamma=0.1), 20)
    assert got == pytest.approx([1] * 9 + [0.1] * 2 + [0.01] * 9)


def test_constant_is_constant() -> None:
    assert set(factors(Schedule(), 7)) == {1.0}


def test_cosine_goes_from_the_rate_to_the_least_one() -> None:
    schedule = Schedule(name="cosine", min_lr=1e-6)
    rates = [1e-4 * rate_factor(schedule, 1e-4, 1, i / 1000) for i in range(1000)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[500] == pytest.approx((1e-4 + 1e-6) / 2)
    assert rates[-1] == pytest.approx(1e-6, rel=1e-3)
    assert all(a > b for a, b in itertools.pairwise(rates))


@given(
    st.sampled_from(["constant", "cosine", "step", "milestones"]),
    st.integers(1, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_no_schedule_leaves_zero_to_one(name: str, epoch: int, progress: float) -> None:
    fields = {"name": name, "every": (7, 9), "at": (3, 50), "min_lr": 1e-3}
    factor = rate_factor(Schedule.model_validate(fields), 0.1, epoch, progress)
    assert 0 < factor <= 1


def test_optimisers_take_what_the_recipe_says_and_groups_their_own() -> None:
    layer = nn.Linear(2, 2)
    groups = [
        {"params": [layer.weight], "lr": 0.1, "weight_decay": 0.5},
        {"params": [layer.bias], "lr": 1.0, "weight_decay": 0.0},
    ]
    adamw = make_optimizer(Optim(name="adamw", lr=0.1, betas=(0.8, 0.9), eps=1e-3), groups)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [(g["lr"], g["weight_decay"]) for g in adamw.param_groups] == [(0.1, 0.5), (1.0, 0.0)]
    assert {(g["betas"], g["eps"]) for g in adamw.param_groups} == {((0.8, 0.9), 1e-3)}
    sgd = make_optimizer(Optim(name="sgd", lr=0.1, momentum=0.7, nesterov=False), groups)
    assert isinstance(sgd, torch.optim.SGD)
    assert {(g["momentum"], g["nesterov"]) for g in sgd.param_groups} == {(0.7, False)}
