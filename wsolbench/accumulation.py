"""Micro-batches: a batch that is computed on in turns, where that trains on what it would."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsolbench.errors import InputError
from wsolbench.method import Coupling, Method
from wsolbench.recipe import Recipe
from wsolbench.types import Batch

#: how a user calls what couples images
_SAID: dict[Coupling, str] = {
    "bn": "BatchNorm",
    "rng": "random draws for a batch",
    "loss": "a loss over the batch",
}


def check_accumulation(recipe: Recipe, method: Method) -> None:
    """Refuse micro-batches of what couples the images of a batch, unless the recipe wants that.

    Raises:
        InputError: naming what couples them.
    """
    if recipe.micro_batch is None or recipe.batch_loss == "micro":
        return
    couplings = [_SAID[coupling] for coupling in coupled_by(method)]
    if couplings:
        raise InputError(
            f"{recipe.method} has {' and '.join(couplings)}, which micro-batches change; add "
            "--set batch_loss=micro to have it for each micro-batch, or leave out micro_batch"
        )


def coupled_by(method: Method) -> list[Coupling]:
    """What the method declares that couples images, without BatchNorm where it has none."""
    declared = method.info.batch_coupled
    has_norm = bool(over_batches(method.train()))
    return [coupling for coupling in declared if coupling != "bn" or has_norm]


def over_batches(model: nn.Module) -> list[str]:
    """Names of the modules that take statistics over the batch, as the model is set."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]


def micro_batches(batch: Batch, size: int | None) -> Iterator[tuple[Batch, float]]:
    """Cut a batch, or this process's part of one, and say what share of it each piece is.

    Args:
        batch: at least one image.
        size: most images of a piece; None for one piece.
    """
    count = len(batch.label)
    size = size or count
    for start in range(0, count, size):
        piece = batch.part(slice(start, start + size))
        yield piece, len(piece.label) / count
