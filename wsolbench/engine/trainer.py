"""The training loop, the same for every method."""

from __future__ import annotations

import hashlib
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from wsolbench import processes
from wsolbench.accumulation import micro_batches
from wsolbench.cost import PeakMemory
from wsolbench.data.loader import TrainLoader
from wsolbench.engine.backward import Backward
from wsolbench.engine.checkpoint import (
    KEPT,
    Best,
    Part,
    Progress,
    newest_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from wsolbench.engine.log import TrainingLog
from wsolbench.engine.schedule import make_optimizer, rate_factor
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.method import Method
from wsolbench.recipe import Recipe
from wsolbench.stopping import StoppedError, StopRequest
from wsolbench.types import Batch

log = logging.getLogger("wsolbench")

_ANEW = "--no-resume trains anew"

#: iterations between two looks at the loss; a look makes an accelerator wait
CHECK_EVERY = 20
#: seconds after which a checkpoint is written within an epoch; there is one after each in any case
SAVE_EVERY = 600.0


class Trainer:
    """Trains a method, epoch by epoch, and leaves checkpoints.

    There is one after each epoch, after :data:`SAVE_EVERY` seconds within one, and where SIGTERM or
    Ctrl-C asks to stop. An interrupted training that is started again goes on after the newest
    whole one and ends with the same weights: every epoch draws its random numbers from seed and
    epoch alone, and a checkpoint within an epoch holds their state.

    Args:
        recipe: what to do.
        method: the model, already on ``device``.
        loader: training batches.
        checkpoint: file of the newest checkpoint; earlier ones lie beside it.
        device: where to train.
        origin: see :class:`Progress`; a checkpoint from other weights is refused.
        kept: checkpoints that stay.
        judge: says after an epoch how good the method is on the hold-out, in percent, the same in
            all processes; the weights of the best epoch, the later of equals, are then left in the
            method. It may leave it in evaluation mode, and draw random numbers.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        loader: TrainLoader,
        checkpoint: Path,
        device: torch.device,
        origin: dict[str, Any],
        kept: int = KEPT,
        judge: Callable[[], float] | None = None,
    ) -> None:
        self.recipe, self.method, self.loader = recipe, method, loader
        self.checkpoint, self.device, self.origin = checkpoint, device, origin
        self.kept, self.judge = kept, judge
        self.memory = PeakMemory(device)
        if recipe.optim is None:
            raise ValueError("this recipe trains nothing")
        self.rate = recipe.optim.lr
        groups = method.param_groups(self.rate, recipe.optim.weight_decay)
        self.optimizer: Optimizer = make_optimizer(recipe.optim, groups)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.progress = Progress()
        self._backward = Backward(self.optimizer, device)
        self._stop = StopRequest()
        self._clock = _Clock()
        self._factor = 1.0

    def run(self) -> Progress:
        """Train to the recipe's last epoch, from the newest whole checkpoint if there is one.

        Raises:
            WsolbenchError: when the loss is not finite or the checkpoint cannot be written.
            InputError: when an image is damaged or the checkpoint of another training.
            StoppedError: when a signal asked to stop, after a checkpoint has been written.
        """
        self._resume()
        self.memory.start()
        with self._stop, closing(TrainingLog(self.checkpoint.parent, self._steps_done())) as log:
            self._log = log
            while self.progress.epoch < self.recipe.epochs:
                self._epoch(self.progress.epoch + 1)
                self._look_at_holdout()
                self._save()
                self._stop_if_asked()
        if self.progress.best is not None:
            self.method.load_state_dict(self.progress.best.state)
        self.optimizer.zero_grad(set_to_none=True)  # scoring has better uses for the memory
        return self.progress

    def _steps_done(self) -> int:
        part = self.progress.part
        return self._steps_before(self.progress.epoch + 1) + (part.step if part else 0)

    def _steps_before(self, epoch: int) -> int:
        return sum(self.loader.batches(before) for before in range(1, epoch))

    def _resume(self) -> None:
        loaded = processes.of_first(lambda: newest_checkpoint(self.checkpoint))
        processes.follow_first(self.method.state_dict().values())
        if loaded is None:
            return
        model, optimizer, self.progress = loaded
        try:
            self._compare(self.progress.origin)
            self.method.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
        except (RuntimeError, ValueError, KeyError) as error:  # of another version of the method
            raise InputError(
                f"{self.checkpoint} is of another model ({type(error).__name__}); {_ANEW}"
            ) from error

    def _compare(self, origin: dict[str, Any]) -> None:
        if origin["weights"] != self.origin["weights"]:
            raise InputError(f"{self.checkpoint} was trained from other weights; {_ANEW}")
        if _cuts(origin) != _cuts(self.origin):
            raise InputError(f"{self.checkpoint} learnt boxes that were cut otherwise; {_ANEW}")
        commit = origin["environment"]["commit"]
        if commit != self.origin["environment"]["commit"]:
            log.info("the checkpoint is of commit %s; %s", commit, _ANEW)

    def _epoch(self, epoch: int) -> None:
        self.method.train()
        meter = self._begin(epoch)
        steps = self.loader.batches(epoch)
        for step, batch in enumerate(self._bar(epoch, meter.step), meter.step):
            done = (epoch - 1 + step / steps) / self.recipe.epochs
            self._set_rate(epoch, done)
            meter.add(self._step(batch, done), batch)
            if step % CHECK_EVERY == CHECK_EVERY - 1:
                meter.check(self.checkpoint)
                self._note(meter)
            self._pause(meter)
        self._check(meter)
        self._note(meter)
        self._advance(meter)
        self._report(meter.means(), meter.fresh / self._clock.total)

    def _look_at_holdout(self) -> None:
        """See whether the weights are the best so far, where these count."""
        if self.judge is None:
            return
        figure, progress = self.judge(), self.progress
        log.info("epoch %d: %.2f on the hold-out", progress.epoch, figure)
        values = {"epoch": float(progress.epoch), "held_out": figure}
        self._log.write(self._steps_done(), values, {})
        progress.history[-1]["held_out"] = figure
        if progress.best is None or figure >= progress.best.figure:
            state = self.method.state_dict().items()
            copy = {name: value.detach().to("cpu", copy=True) for name, value in state}
            progress.best = Best(progress.epoch, figure, copy)
        progress.seconds += self._clock.lap()

    def _begin(self, epoch: int) -> _Meter:
        """Set the random numbers and account to where the epoch starts or goes on."""
        part = self.progress.part
        if part is None:
            number = processes.number()
            seed_all(self.recipe.seed, f"epoch {epoch}" + (f" process {number}" if number else ""))
        elif len(part.rng) != processes.count():
            raise InputError(
                f"{self.checkpoint} is of a training by {len(part.rng)} processes within an epoch; "
                f"go on with as many ({_ANEW})"
            )
        else:
            set_rng_state(part.rng[processes.number()], self.device)
        self._clock = _Clock()
        return _Meter(self.recipe.method, epoch, part, self.device)

    def _advance(self, meter: _Meter) -> None:
        """Bring the progress to where the account stands."""
        former, whole = self.progress, meter.step == self.loader.batches(meter.epoch)
        before = former.part.images if former.part else 0
        self.progress = Progress(
            epoch=meter.epoch if whole else former.epoch,
            seconds=former.seconds + self._clock.lap(),
            images=former.images + meter.images - before,
            peak_memory=max(former.peak_memory, self.memory.peak()),
            history=[*former.history, meter.means()] if whole else former.history,
            origin=self.origin,
            part=None if whole else meter.part(processes.from_all(rng_state(self.device))),
            best=former.best,
        )

    def _pause(self, meter: _Meter) -> None:
        """Write a checkpoint within an epoch where one is due, and stop where that is asked for."""
        asked = self._stop.signal or int(self._clock.since_saving() > SAVE_EVERY)
        if meter.step == self.loader.batches(meter.epoch) or not processes.greatest(asked):
            return
        self._check(meter)
        self._advance(meter)
        self._save()
        self._stop_if_asked()

    def _save(self) -> None:
        model, optimizer = self.method.state_dict(), self.optimizer.state_dict()
        if processes.is_first():
            save_checkpoint(self.checkpoint, model, optimizer, self.progress, self.kept)
        self._clock.saved()

    def _stop_if_asked(self) -> None:
        number = processes.greatest(self._stop.signal)
        if not number:
            return
        part = self.progress.part
        where = f"epoch {self.progress.epoch} of {self.recipe.epochs}"
        steps = self.loader.batches(self.progress.epoch + 1) if part else 0
        step = f" and {part.step} of {steps} steps" if part else ""
        raise StoppedError(number, f"a checkpoint was written after {where}{step}")

    def _note(self, meter: _Meter) -> None:
        """Add an entry to the log, of the steps since the last one."""
        images, losses, seconds = meter.since_last()
        if not images:
            return
        values = {
            "epoch": meter.epoch,
            "lr": self.rate * self._factor,
            "images_per_second": images / seconds,
            "peak_memory_bytes": self.memory.peak(),
        }
        self._log.write(self._steps_before(meter.epoch) + meter.step, values, losses)

    def _report(self, losses: dict[str, float], rate: float) -> None:
        text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        done = f"{self.progress.epoch}/{self.recipe.epochs}"
        log.info("epoch %s: %s, %.1f images/s", done, text, rate)

    def _check(self, meter: _Meter) -> None:
        meter.check(self.checkpoint)
        # the last step's damage would show in no loss
        if not all(torch.isfinite(p).all() for p in self.method.parameters()):
            raise _diverged(self.recipe.method, "a weight", meter.epoch, self.checkpoint)

    def _step(self, batch: Batch, done: float) -> dict[str, Tensor]:
        batch = replace(batch, joint=self.recipe.batch_loss == "global")
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for piece, share in micro_batches(batch, self.recipe.micro_batch):
            losses = {name: value * share for name, value in self._losses(piece, done).items()}
            self._backward(losses["loss"])
            sums = {name: sums.get(name, 0.0) + value.detach() for name, value in losses.items()}
        processes.join_gradients(self.method, batch.share)
        self.optimizer.step()
        return sums

    def _losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.method.training_step(batch, done)

    def _set_rate(self, epoch: int, done: float) -> None:
        self._factor = rate_factor(self.recipe.schedule, self.rate, epoch, done)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._factor

    def _bar(self, epoch: int, first: int) -> Iterator[Batch]:
        label = f"{self.recipe.method} seed {self.recipe.seed} epoch {epoch}/{self.recipe.epochs}"
        batches = tqdm(
            self.loader.epoch(epoch, first),
            label,
            self.loader.batches(epoch),
            initial=first,
            leave=False,
            disable=not (sys.stderr.isatty() and processes.is_first()),
        )
        return iter(batches)


class _Clock:
    """Wall-clock seconds: of laps, of all laps, and since a checkpoint was written."""

    def __init__(self) -> None:
        self.total = 0.0
        self._lap = self._saved = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        passed, self._lap = now - self._lap, now
        self.total += passed
        return passed

    def saved(self) -> None:
        self._saved = time.perf_counter()

    def since_saving(self) -> float:
        return time.perf_counter() - self._saved


def _cuts(origin: dict[str, Any]) -> list[tuple[Any, ...]]:
    """How the boxes that were learnt had been cut; checkpoints of old know of none."""
    inputs = origin.get("inputs", ())
    return [(i["recipe_key"], i["threshold"], i["percentile"]) for i in inputs]


class _Meter:
    """Means of the losses of one epoch, kept on the device until somebody looks."""

    def __init__(self, method: str, epoch: int, part: Part | None, device: torch.device) -> None:
        self.method, self.epoch = method, epoch
        self.step, self.images = (part.step, part.images) if part else (0, 0)
        self._begun = self.images
        sums = part.sums if part else {}
        former = {name: total.to(device) for name, total in sums.items()}
        self._sums = dict(former) if processes.is_first() else {}  # of this process
        self._noted = self.images, former, time.perf_counter()

    def add(self, losses: dict[str, Tensor], batch: Batch) -> None:
        self.step += 1
        self.images += batch.count if batch.whole is None else batch.whole
        for name, value in losses.items():
            weighted = value.double() * batch.count
            self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted

    @property
    def fresh(self) -> int:
        """Images since this process took the epoch up."""
        return self.images - self._begun

    def part(self, rng: list[dict[str, Any]]) -> Part:
        return Part(self.step, self.images, self._totals(), rng)

    def _totals(self) -> dict[str, Tensor]:
        """Sums over the images of all processes."""
        return {name: processes.total(own) for name, own in self._sums.items()}

    def check(self, checkpoint: Path) -> None:
        if torch.isfinite(self._totals()["loss"]):
            return
        raise _diverged(self.method, "the loss", self.epoch, checkpoint)

    def since_last(self) -> tuple[int, dict[str, float], float]:
        """Images, mean losses and seconds since this was asked last, or the meter was made."""
        before, sums, then = self._noted
        self._noted = self.images, self._totals(), time.perf_counter()
        images = self.images - before
        means = {
            name: float(total - sums[name] if name in sums else total) / max(images, 1)
            for name, total in self._noted[1].items()
        }
        return images, means, self._noted[2] - then

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.images for name, total in self._totals().items()}


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
