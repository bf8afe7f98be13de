"""Optimisers and learning rates as a recipe names them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from wsolbench.recipe import Optim, Schedule


def make_optimizer(optim: Optim, groups: list[dict[str, Any]]) -> Optimizer:
    """Build the optimiser over a method's parameter groups, which carry their own rates."""
    if optim.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
        )
    return torch.optim.SGD(
        groups,
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        weight_decay=optim.weight_decay,
    )


def rate_factor(schedule: Schedule, lr: float, epoch: int, progress: float) -> float:
    """Factor on every group's own learning rate.

    Args:
        schedule: the recipe's.
        lr: the recipe's learning rate, which ``min_lr`` is measured against.
        epoch: counted from 1.
        progress: share of all iterations that is done, in [0, 1).
    """
    if schedule.name == "cosine":
        floor = schedule.min_lr / lr
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule.name == "step":
        drops = sum(any(e % n == 0 for n in schedule.every) for e in range(1, epoch + 1))
        return float(schedule.gamma**drops)
    if schedule.name == "milestones":
        return float(schedule.gamma ** sum(epoch >= e for e in schedule.at))
    return 1.0
