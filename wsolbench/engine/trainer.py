"""The training loop, the same for every method."""

from __future__ import annotations

import hashlib
import logging
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from wsolbench.cost import PeakMemory
from wsolbench.data.loader import TrainLoader
from wsolbench.engine.checkpoint import Progress, load_checkpoint, save_checkpoint, unusable
from wsolbench.engine.schedule import make_optimizer, rate_factor
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.method import Method
from wsolbench.recipe import Recipe
from wsolbench.types import Batch

log = logging.getLogger("wsolbench")

#: iterations between two looks at the loss; a look makes an accelerator wait
CHECK_EVERY = 20


class Trainer:
    """Trains a method, epoch by epoch, and leaves a checkpoint after each.

    An interrupted training that is started again goes on after its last whole epoch and ends with
    the same weights: every epoch draws its random numbers from seed and epoch alone.

    Args:
        recipe: what to do.
        method: the model, already on ``device``.
        loader: training batches.
        checkpoint: file of the last checkpoint.
        device: where to train.
        origin: see :class:`Progress`; a checkpoint from other weights is refused.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        loader: TrainLoader,
        checkpoint: Path,
        device: torch.device,
        origin: dict[str, Any],
    ) -> None:
        self.recipe, self.method, self.loader = recipe, method, loader
        self.checkpoint, self.device, self.origin = checkpoint, device, origin
        self.memory = PeakMemory(device)
        if recipe.optim is None:
            raise ValueError("this recipe trains nothing")
        self.rate = recipe.optim.lr
        groups = method.param_groups(self.rate, recipe.optim.weight_decay)
        self.optimizer: Optimizer = make_optimizer(recipe.optim, groups)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.progress = Progress()

    def run(self) -> Progress:
        """Train to the recipe's last epoch, from the checkpoint if there is one.

        Raises:
            WsolbenchError: when the loss is not finite or the checkpoint cannot be written.
            InputError: when an image or the checkpoint is damaged.
        """
        self._resume()
        self.memory.start()
        while self.progress.epoch < self.recipe.epochs:
            self._epoch(self.progress.epoch + 1)
            save_checkpoint(
                self.checkpoint,
                self.method.state_dict(),
                self.optimizer.state_dict(),
                self.progress,
            )
        return self.progress

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            return
        model, optimizer, self.progress = load_checkpoint(self.checkpoint)
        try:
            self._compare(self.progress.origin)
            self.method.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
        except (RuntimeError, ValueError, KeyError) as error:  # of another version of the method
            raise unusable(self.checkpoint, error) from error

    def _compare(self, origin: dict[str, Any]) -> None:
        if origin["weights"] != self.origin["weights"]:
            raise InputError(
                f"{self.checkpoint} was trained from other weights; delete it to train again"
            )
        if _cuts(origin) != _cuts(self.origin):
            raise InputError(
                f"{self.checkpoint} learnt boxes that were cut otherwise; delete it to train again"
            )
        commit = origin["environment"]["commit"]
        if commit != self.origin["environment"]["commit"]:
            log.info("the checkpoint is of commit %s; delete it to train again", commit)

    def _epoch(self, epoch: int) -> None:
        seed_all(self.recipe.seed, f"epoch {epoch}")
        self.method.train()
        started = time.perf_counter()
        meter = _Meter(self.recipe.method, epoch)
        for step, batch in enumerate(self._bar(epoch)):
            done = (epoch - 1 + step / self.loader.batches(epoch)) / self.recipe.epochs
            self._set_rate(epoch, done)
            meter.add(self._step(batch, done), len(batch.label))
            if step % CHECK_EVERY == CHECK_EVERY - 1:
                meter.check(self.checkpoint)
        meter.check(self.checkpoint)
        self._check_weights(epoch)
        seconds = time.perf_counter() - started
        self.progress = Progress(
            epoch=epoch,
            seconds=self.progress.seconds + seconds,
            images=self.progress.images + meter.images,
            peak_memory=max(self.progress.peak_memory, self.memory.peak()),
            history=[*self.progress.history, meter.means()],
            origin=self.origin,
        )
        self._report(meter.means(), meter.images / seconds)

    def _report(self, losses: dict[str, float], rate: float) -> None:
        text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        done = f"{self.progress.epoch}/{self.recipe.epochs}"
        log.info("epoch %s: %s, %.1f images/s", done, text, rate)

    def _check_weights(self, epoch: int) -> None:
        # the last step's damage would show in no loss
        if not all(torch.isfinite(p).all() for p in self.method.parameters()):
            raise _diverged(self.recipe.method, "a weight", epoch, self.checkpoint)

    def _step(self, batch: Batch, done: float) -> dict[str, Tensor]:
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            losses = self.method.training_step(batch, done)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def _set_rate(self, epoch: int, done: float) -> None:
        factor = rate_factor(self.recipe.schedule, self.rate, epoch, done)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _bar(self, epoch: int) -> Iterator[Batch]:
        label = f"{self.recipe.method} seed {self.recipe.seed} epoch {epoch}/{self.recipe.epochs}"
        quiet = not sys.stderr.isatty()
        batches = self.loader.epoch(epoch)
        count = self.loader.batches(epoch)
        return iter(tqdm(batches, label, count, leave=False, disable=quiet))


def _cuts(origin: dict[str, Any]) -> list[tuple[Any, ...]]:
    """How the boxes that were learnt had been cut; checkpoints of old know of none."""
    inputs = origin.get("inputs", ())
    return [(i["recipe_key"], i["threshold"], i["percentile"]) for i in inputs]


class _Meter:
    """Means of the losses of one epoch, kept on the device until somebody looks."""

    def __init__(self, method: str, epoch: int) -> None:
        self.method, self.epoch, self.images = method, epoch, 0
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        self.images += images
        for name, value in losses.items():
            weighted = value.double() * images
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted

    def check(self, checkpoint: Path) -> None:
        if torch.isfinite(self._sums["loss"]):
            return
        raise _diverged(self.method, "the loss", self.epoch, checkpoint)

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.images for name, total in self._sums.items()}


def _diverged(method: str, what: str, epoch: int, checkpoint: Path) -> WsolbenchError:
    kept = f"the epochs before are in {checkpoint}" if checkpoint.is_file() else "nothing kept"
    return WsolbenchError(
        f"{method}: {what} became NaN or infinite in epoch {epoch}; "
        f"try a smaller --set optim.lr=... ({kept})"
    )


def seed_all(seed: int, purpose: str) -> None:
    """Seed torch on every device, numpy and Python from a seed and what the numbers are for."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    np.random.seed(int.from_bytes(digest[8:12], "little"))  # methods may draw from it
    random.seed(digest)
