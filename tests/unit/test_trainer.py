"""Training: the same weights from the same seed, whatever interrupts it; one line when it fails."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import math
import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.data.loader import DecodedImages, TrainLoader
from wsolbench.engine import checkpoint
from wsolbench.engine import trainer as engine
from wsolbench.engine.checkpoint import load_checkpoint
from wsolbench.engine.log import TrainingLog
from wsolbench.engine.trainer import Trainer, seed_all
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.method import Method, MethodInfo, Options
from wsolbench.recipe import Recipe
from wsolbench.registry import DATASETS
from wsolbench.stopping import StoppedError
from wsolbench.types import Batch, Prediction

ORIGIN = {"weights": None, "environment": {"commit": "abc"}}
CPU = torch.device("cpu")
SIZE = 12
FILE = "checkpoint.pt"

Step = Callable[["Toy", Batch, float], dict[str, Tensor]]


class Toy(Method):
    """A network with all that a checkpoint must carry: statistics, momentum, random numbers."""

    info = MethodInfo(title="Toy", paper="none", year=2000)

    def __init__(self, backbone: nn.Module, num_classes: int, options: Options) -> None:
        super().__init__(backbone, num_classes, options)
        self.trunk = backbone
        self.fc = nn.Linear(4, num_classes)
        self.seen: list[tuple[float, list[float]]] = []
        self.trainer: Trainer | None = None

    def training_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        if self.trainer is not None:
            groups = self.trainer.optimizer.param_groups
            self.seen.append((progress, [group["lr"] for group in groups]))
        features = F.dropout(self.trunk(batch.image).mean((2, 3)), training=self.training)
        features = features * (random.random() + float(np.random.normal()))  # other generators
        loss = F.cross_entropy(self.fc(features).float(), batch.label)
        return {"loss": loss, "twice": 2 * loss}

    def localize(self, image: Tensor, label: Tensor | None) -> Prediction:
        raise NotImplementedError

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return [
            {"params": list(self.trunk.parameters()), "lr": lr},
            {"params": list(self.fc.parameters()), "lr": 10 * lr},
        ]


@pytest.fixture(scope="module")
def images(tiny_cub: Path) -> tuple[list[Any], DecodedImages]:
    samples = list(DATASETS.get("cub")(tiny_cub).samples("train"))
    return samples, DecodedImages(samples, SIZE + 4)


Make = Callable[..., Trainer]


@pytest.fixture
def make(images: tuple[list[Any], DecodedImages], tmp_path: Path) -> Make:
    """Return a function that makes a trainer as a new process would: nothing but files is kept."""

    def make(
        folder: str = "run",
        kept: int = 2,
        judge: Callable[[Method], float] | None = None,
        **fields: Any,
    ) -> Trainer:
        recipe = Recipe.model_validate(
            {
                "method": "toy",
                "dataset": "cub",
                "name": "default",
                "backbone": "none",
                "epochs": 3,
                "batch_size": 7,  # the last of four batches is smaller
                "holdout": 0,
                "image_size": SIZE,
                "optim": {"name": "adamw", "lr": 1e-2},
                "schedule": {"name": "cosine"},
                "protocol": ["wsoleval"],
                **fields,
            }
        )
        samples, decoded = images
        statistics = ((0.5,) * 3,) * 2
        loader = TrainLoader(
            samples, decoded, recipe.batch_size, SIZE, 0.5, *statistics, recipe.seed, False, CPU
        )
        seed_all(recipe.seed, "initialisation")
        method = Toy(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 3, Options())
        asked = None if judge is None else partial(judge, method)
        file = tmp_path / folder / FILE
        return Trainer(recipe, method, loader, file, CPU, ORIGIN, kept, asked)

    return make


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fail_at(
    monkeypatch: pytest.MonkeyPatch, count: int, action: Callable[[dict[str, Tensor]], None]
) -> None:
    """Act on the losses of step number ``count`` (from 1)."""
    real: Step = Toy.training_step
    steps = iter(range(1, 10**6))

    def step(self: Toy, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = real(self, batch, progress)
        if next(steps) == count:
            action(losses)
        return losses

    monkeypatch.setattr(Toy, "training_step", step)


def interrupt(losses: dict[str, Tensor]) -> None:
    raise KeyboardInterrupt


def ask_to_stop(losses: dict[str, Tensor]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def spoil(losses: dict[str, Tensor]) -> None:
    losses["loss"] = losses["loss"] * float("nan")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a switch after which no temporary file can be written any more."""
    real = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if not self.name.endswith(".tmp"):
            return real(self, *args, **kwargs)
        real(self, *args, **kwargs).close()
        return _Full()

    return lambda: monkeypatch.setattr(Path, "open", refuse)


class _Full(io.RawIOBase):
    """A file on a disk with room for a kilobyte."""

    room = 1000

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)


def checkpoint_names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if "checkpoint" in file.name)


# --------------------------------------------------------------------------------- determinism


def test_the_seed_decides_the_weights(make: Make) -> None:
    first, again, other = make("a"), make("b"), make("c", seed=1)
    for trainer in (first, again, other):
        torch.rand(3)  # whatever was drawn before must not matter
        trainer.run()
    assert same(weights(first), weights(again))
    assert first.progress.history == again.progress.history
    assert not torch.equal(weights(first)["fc.weight"], weights(other)["fc.weight"])


@pytest.mark.parametrize(
    ("step", "optim"), [(1, "adamw"), (5, "adamw"), (7, "adamw"), (12, "adamw"), (7, "sgd")]
)
def test_an_interruption_changes_no_bit(
    make: Make, monkeypatch: pytest.MonkeyPatch, step: int, optim: str
) -> None:
    fields: dict[str, Any] = {"optim": {"name": optim, "lr": 1e-2}}
    whole = make("whole", **fields)
    whole.run()
    with monkeypatch.context() as patch:
        fail_at(patch, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make("cut", **fields).run()
    torch.rand(17)
    resumed = make("cut", **fields)
    resumed.run()
    assert same(weights(resumed), weights(whole))
    assert resumed.progress.history == whole.progress.history
    assert resumed.progress.images == whole.progress.images == 3 * 24


@pytest.mark.parametrize("step", [1, 6, 8, 11])
def test_a_signal_is_obeyed_after_a_checkpoint_and_changes_no_bit(
    make: Make, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = make("whole")
    whole.run()
    with monkeypatch.context() as patch:
        fail_at(patch, step, ask_to_stop)
        stopped = make("cut")
        with pytest.raises(StoppedError, match="a checkpoint was written after") as raised:
            stopped.run()
    assert raised.value.exit_code == 128 + signal.SIGTERM
    assert stopped.progress.images == sum(([7, 7, 7, 3] * 3)[:step])
    torch.rand(17)
    resumed = make("cut")
    steps = seen(resumed)
    assert len(steps) == 12 - step  # not one is made twice
    assert same(weights(resumed), weights(whole))
    assert resumed.progress.history == whole.progress.history
    assert resumed.progress.images == whole.progress.images == 3 * 24


def test_checkpoints_within_an_epoch_cost_a_killed_one_only_what_came_after(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make("whole")
    whole.run()
    monkeypatch.setattr(engine, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        fail_at(patch, 7, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make("cut").run()
    resumed = make("cut")
    assert len(seen(resumed)) == 12 - 6
    assert same(weights(resumed), weights(whole))
    assert resumed.progress.history == whole.progress.history


def test_a_batch_is_computed_on_in_turns(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Step = Toy.training_step
    pieces = []

    def step(self: Toy, batch: Batch, progress: float) -> dict[str, Tensor]:
        pieces.append((len(batch.image_id), batch.joint, progress))
        return real(self, batch, progress)

    monkeypatch.setattr(Toy, "training_step", step)
    trainer = make(micro_batch=3, batch_loss="micro", epochs=1)
    progress = trainer.run()
    starts = [
        (size, place / 4) for place, batch in enumerate([7, 7, 7, 3]) for size in turns(batch)
    ]
    assert pieces == [(size, False, done) for size, done in starts]
    assert progress.images == 24
    assert progress.history[0]["twice"] == pytest.approx(2 * progress.history[0]["loss"])


def turns(images: int) -> list[int]:
    return [3] * (images // 3) + ([images % 3] if images % 3 else [])


class Judge:
    """Says figures one after the other, and keeps the weights that it said them of."""

    def __init__(self, *figures: float) -> None:
        self.figures, self.seen = figures, []  # type: tuple[float, ...], list[dict[str, Tensor]]

    def __call__(self, method: Method) -> float:
        method.eval()
        torch.rand(3), random.random()
        self.seen.append({name: t.clone() for name, t in method.state_dict().items()})
        return self.figures[len(self.seen) - 1]


@pytest.mark.parametrize(
    ("figures", "best"),
    [((1.0, 3.0, 2.0), 2), ((3.0, 3.0, 1.0), 2), ((1.0, 2.0, 3.0), 3), ((5.0, 0.0, 4.0), 1)],
)
def test_the_best_epoch_counts_and_the_training_is_the_same(
    make: Make, figures: tuple[float, ...], best: int
) -> None:
    plain, judge = make("plain"), Judge(*figures)
    plain.run()
    trainer = make("judged", judge=judge)
    progress = trainer.run()
    assert same(weights(trainer), judge.seen[best - 1])
    assert same(judge.seen[-1], weights(plain))
    assert progress.best is not None
    assert (progress.best.epoch, progress.best.figure) == (best, figures[best - 1])
    told = [entry.pop("held_out") for entry in progress.history]
    assert told == list(figures)
    assert progress.history == plain.progress.history
    log = (trainer.checkpoint.parent / "log.jsonl").read_text().splitlines()
    assert [e["held_out"] for e in map(json.loads, log) if "held_out" in e] == told


@pytest.mark.parametrize("step", [3, 6, 10])
@pytest.mark.parametrize("action", [interrupt, ask_to_stop])
def test_an_interruption_keeps_the_best_epoch(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    action: Callable[[dict[str, Tensor]], None],
) -> None:
    whole = make("whole", judge=Judge(3.0, 1.0, 2.0))
    whole.run()
    judged = (step - 1) // 4
    with monkeypatch.context() as patch:
        fail_at(patch, step, action)
        with pytest.raises((KeyboardInterrupt, StoppedError)):
            make("cut", judge=Judge(3.0, 1.0, 2.0)).run()
    resumed = make("cut", judge=Judge(*(3.0, 1.0, 2.0)[judged:]))
    resumed.run()
    assert same(weights(resumed), weights(whole))
    assert resumed.progress.history == whole.progress.history
    again = make("cut", judge=Judge())  # finished: nothing is looked at again
    again.run()
    assert same(weights(again), weights(whole))


def test_a_kill_while_the_holdout_is_looked_at_costs_the_time_since_the_checkpoint(
    make: Make,
) -> None:
    def killed(method: Method) -> float:
        raise KeyboardInterrupt

    whole = make("whole", judge=Judge(3.0, 1.0, 2.0))
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        make("cut", judge=killed).run()
    resumed = make("cut", judge=Judge(3.0, 1.0, 2.0))
    resumed.run()
    assert same(weights(resumed), weights(whole))
    log = (resumed.checkpoint.parent / "log.jsonl").read_text().splitlines()
    assert [e["step"] for e in map(json.loads, log)] == [4, 4, 8, 8, 12, 12]


def test_a_finished_training_is_only_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    first.run()
    fail_at(monkeypatch, 1, interrupt)
    again = make()
    assert again.run() == first.progress
    assert same(weights(again), weights(first))


def test_progress_tells_the_means_of_an_epoch(make: Make) -> None:
    trainer = make()
    progress = trainer.run()
    assert (progress.epoch, progress.images, len(progress.history)) == (3, 72, 3)
    assert progress.seconds > 0
    for means in progress.history:
        assert means["twice"] == pytest.approx(2 * means["loss"])


def test_bf16_trains_weights_of_full_precision(make: Make) -> None:
    full, half = make("full"), make("half", precision="bf16")
    full.run()
    half.run()
    assert {t.dtype for t in weights(half).values() if t.is_floating_point()} == {torch.float32}
    assert not torch.equal(weights(full)["fc.weight"], weights(half)["fc.weight"])
    losses = [history["loss"] for history in half.progress.history]
    assert losses == pytest.approx([h["loss"] for h in full.progress.history], rel=0.1)


# --------------------------------------------------------------------------------------- rates


def seen(trainer: Trainer) -> list[tuple[float, list[float]]]:
    method = trainer.method
    assert isinstance(method, Toy)
    method.trainer = trainer
    trainer.run()
    return method.seen


def test_groups_keep_their_ratio_over_a_cosine_of_iterations(make: Make) -> None:
    steps = seen(make())
    assert [progress for progress, _ in steps] == pytest.approx([i / 12 for i in range(12)])
    slow = [rates[0] for _, rates in steps]
    assert slow[0] == pytest.approx(1e-2)
    assert slow == sorted(set(slow), reverse=True)
    assert all(fast == pytest.approx(10 * slow) for _, (slow, fast) in steps)


def test_steps_fall_at_the_start_of_their_epoch(make: Make) -> None:
    schedule = {"name": "step", "every": [2], "gamma": 0.5}
    slow = [rates[0] for _, rates in seen(make(schedule=schedule))]
    assert slow == pytest.approx([0.01] * 4 + [0.005] * 8)


def test_a_resumed_training_takes_up_the_rate(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = seen(make("whole"))
    with monkeypatch.context() as patch:
        fail_at(patch, 6, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make("cut").run()
    assert seen(make("cut")) == whole[4:]


# ------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("step", [5, 6, 8])
def test_nan_stops_and_keeps_the_epochs_before(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, step, spoil)
        with pytest.raises(WsolbenchError, match=r"toy: the loss .* in epoch 2") as raised:
            make().run()
    assert raised.value.exit_code == 1
    assert "\n" not in str(raised.value)
    _, _, progress = load_checkpoint(tmp_path / "run" / FILE)
    assert progress.epoch == 1
    whole = make("whole")
    whole.run()
    resumed = make()
    resumed.run()
    assert same(weights(resumed), weights(whole))


def test_nan_in_the_first_epoch_keeps_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fail_at(monkeypatch, 2, spoil)
    with pytest.raises(WsolbenchError, match="nothing kept"):
        make().run()
    assert not list(tmp_path.rglob("*.pt"))


def test_a_full_disk_leaves_the_earlier_checkpoint(
    make: Make, full_disk: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, 5, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make().run()
    before = (tmp_path / "run" / FILE).read_bytes()
    full_disk()
    with pytest.raises(WsolbenchError, match="No space left on device; make room") as raised:
        make().run()
    assert raised.value.exit_code == 1
    assert "\n" not in str(raised.value)
    assert checkpoint_names(tmp_path / "run") == [FILE]
    assert (tmp_path / "run" / FILE).read_bytes() == before


def test_a_file_that_may_not_grow_leaves_the_earlier_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, 6, ask_to_stop)
        with pytest.raises(StoppedError):
            make().run()
    before = (tmp_path / "run" / FILE).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WsolbenchError, match="File too large; make room") as raised:
            make().run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.exit_code == 1
    assert (tmp_path / "run" / FILE).read_bytes() == before
    whole, resumed = make("whole"), make()
    whole.run()
    assert len(seen(resumed)) == 6
    assert same(weights(resumed), weights(whole))


# ---------------------------------------------------------------------------------------- logs


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def events(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: value by step by name, of every process that wrote there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def test_the_log_has_every_scalar_of_the_method(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "CHECK_EVERY", 3)
    progress = make().run()
    made = entries(tmp_path / "run")
    assert [entry["step"] for entry in made] == [3, 4, 7, 8, 11, 12]
    assert [entry["epoch"] for entry in made] == [1, 1, 2, 2, 3, 3]
    first, last = (entry["losses"] for entry in made[:2])
    for name in ("loss", "twice"):  # of 21 images, and of the last 3
        mean = (first[name] * 21 + last[name] * 3) / 24
        assert mean == pytest.approx(progress.history[0][name], rel=1e-9)
    assert all(entry["images_per_second"] > 0 for entry in made)
    assert all(entry["peak_memory_bytes"] > 0 for entry in made)
    assert made[0]["lr"] == pytest.approx(1e-2 * (1 + math.cos(math.pi * 2 / 12)) / 2)
    shown = events(tmp_path / "run")
    assert {*made[0], "losses/loss", "losses/twice"} - {"losses", "step"} == set(shown)
    for entry in made:
        assert shown["losses/twice"][entry["step"]] == pytest.approx(entry["losses"]["twice"])


def test_the_log_of_a_resumed_training_tells_each_step_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "CHECK_EVERY", 1)
    with monkeypatch.context() as patch:
        fail_at(patch, 7, interrupt)  # as a killed process: two entries have no checkpoint
        with pytest.raises(KeyboardInterrupt):
            make().run()
    with (tmp_path / "run" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 7, "epo')
    make().run()
    assert [entry["step"] for entry in entries(tmp_path / "run")] == list(range(1, 13))
    assert list(events(tmp_path / "run")["lr"]) == list(range(1, 13))


def test_a_log_that_may_not_grow_is_one_line(tmp_path: Path) -> None:
    """Event files take more than the lines do, so that they are full first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WsolbenchError, match=r"tensorboard.*make room"):
            _fill_a_log(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _fill_a_log(folder: Path) -> None:
    with closing(TrainingLog(folder, 0)) as log:
        for step in range(100):
            log.write(step, {"a": 0.5}, {})


def test_a_scalar_that_is_no_number_is_null(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0)
    log.write(1, {"lr": 0.5}, {"other": float("nan")})
    log.close()
    assert entries(tmp_path) == [{"step": 1, "lr": 0.5, "losses": {"other": None}}]


# ------------------------------------------------------------------------- several checkpoints


@pytest.mark.parametrize("kept", [1, 2, 3, 9])
def test_as_many_checkpoints_stay_as_are_asked_for(make: Make, tmp_path: Path, kept: int) -> None:
    make(kept=kept).run()
    files = [FILE, "checkpoint.1.pt", "checkpoint.2.pt"][:kept]
    assert checkpoint_names(tmp_path / "run") == sorted(files)
    epochs = [load_checkpoint(tmp_path / "run" / name)[2].epoch for name in files]
    assert epochs == [3, 2, 1][:kept]


def test_fewer_checkpoints_than_before_are_kept(make: Make, tmp_path: Path) -> None:
    make(kept=3).run()
    make(kept=2, epochs=4).run()
    assert checkpoint_names(tmp_path / "run") == ["checkpoint.1.pt", FILE]


def test_a_damaged_checkpoint_costs_only_what_came_after_the_one_before(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make()
    whole.run()
    file = tmp_path / "run" / FILE
    file.write_bytes(file.read_bytes()[:-100])
    resumed = make()
    with caplog.at_level(logging.WARNING, "wsolbench"):
        assert len(seen(resumed)) == 4
    assert f"{file} is no usable checkpoint" in caplog.text
    assert same(weights(resumed), weights(whole))


def test_a_checkpoint_that_cannot_be_read_just_now_is_no_damaged_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(epochs=2).run()
    before = {file: file.read_bytes() for file in (tmp_path / "run").glob("*.pt")}

    def unreadable(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "check_sums", unreadable)
        with pytest.raises(WsolbenchError, match=r"cannot be read \(Input/output error\)"):
            make(epochs=3).run()
    assert {file: file.read_bytes() for file in (tmp_path / "run").glob("*.pt")} == before


def test_what_a_killed_process_was_writing_is_removed(make: Make, tmp_path: Path) -> None:
    stale = tmp_path / "run" / ".checkpoint.new.pt.0123.tmp"
    stale.parent.mkdir()
    stale.write_bytes(b"half")
    make(epochs=1).run()
    assert not stale.exists()


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_kill_between_two_moves_loses_no_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moves: int
) -> None:
    make("whole").run()
    make(epochs=2).run()
    real, left = Path.replace, iter(range(moves + 1))

    def replace(self: Path, target: Path) -> Path:
        if not self.name.endswith(".tmp") and next(left) == moves:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt) if moves < 2 else contextlib.nullcontext():
            make(epochs=3).run()
    assert seen(make(epochs=3)) == []  # the third epoch's was written, wherever it lay
    make(epochs=4).run()
    assert checkpoint_names(tmp_path / "run") == ["checkpoint.1.pt", FILE]
    assert load_checkpoint(tmp_path / "run" / FILE)[2].epoch == 4


def test_a_folder_that_cannot_be_made_is_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="is a file, not a folder") as raised:
        make().run()
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def finished(images: tuple[list[Any], DecodedImages]) -> bytes:
    model = nn.Linear(9, 9)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 9)).sum().backward()
    optimizer.step()
    progress = {"epoch": 1, "images": 2, "history": [{"loss": 0.5}], "origin": ORIGIN}
    stream = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "progress": progress}, stream)
    return stream.getvalue()


def state_of(file: Path) -> dict[str, Any]:
    model, optimizer, progress = load_checkpoint(file)
    flat = {f"{i}.{k}": v for i, s in optimizer["state"].items() for k, v in s.items()}
    return {**model, **flat, "progress": torch.tensor([progress.epoch, progress.images])}


def test_no_damage_goes_unnoticed_or_uncaught(finished: bytes, tmp_path: Path) -> None:
    file = tmp_path / FILE
    file.write_bytes(finished)
    whole = state_of(file)
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for trial in range(300):
        damaged = bytearray(finished)
        place = int(torch.randint(len(finished), (1,), generator=generator))
        if trial % 3 == 0:
            del damaged[place:]
        elif trial % 3 == 1:
            damaged[place] ^= 1 << trial % 8
        else:
            damaged[place : place + 8] = bytes(8)
        file.write_bytes(damaged)
        try:
            # what does read has lost nothing: padding and comments carry no weights
            assert same(state_of(file), whole)
        except InputError as error:
            refused += 1
            assert f"{file} is no usable checkpoint" in str(error)
            assert "\n" not in str(error)
    assert refused > 150


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_where_no_checkpoint_is_whole_the_training_begins(
    make: Make, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_bytes(content)
    with caplog.at_level(logging.WARNING, "wsolbench"):
        assert len(seen(make())) == 12
    assert "no usable checkpoint" in caplog.text


def test_a_checkpoint_from_other_weights_is_refused(make: Make) -> None:
    make().run()
    other = make()
    other.origin = {**ORIGIN, "weights": {"name": "other"}}
    with pytest.raises(InputError, match="was trained from other weights; --no-resume"):
        other.run()
    later = make()
    later.origin = {**ORIGIN, "environment": {"commit": "later"}}
    assert later.run().origin == ORIGIN


def test_a_checkpoint_without_its_origin_is_named(make: Make, tmp_path: Path) -> None:
    make().run()
    file = tmp_path / "run" / FILE
    state = torch.load(file, weights_only=True)
    del state["progress"]["origin"]
    torch.save(state, file)
    with pytest.raises(InputError, match="is of another model"):
        make().run()


def test_a_checkpoint_of_an_earlier_version_is_taken(make: Make, tmp_path: Path) -> None:
    first = make()
    first.run()
    file = tmp_path / "run" / FILE
    state = torch.load(file, weights_only=True)
    del state["progress"]["part"]
    torch.save(state, file)
    assert make().run() == first.progress


def test_a_checkpoint_of_another_model_is_named(
    make: Make, tmp_path: Path, finished: bytes
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_bytes(finished)
    with pytest.raises(InputError, match=r"is of another model .*--no-resume trains anew"):
        make().run()
