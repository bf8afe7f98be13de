"""Training: the same weights from the same seed, whatever interrupts it; one line when it fails."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.data.loader import DecodedImages, TrainLoader
from wsolbench.engine.checkpoint import load_checkpoint
from wsolbench.engine.trainer import Trainer, seed_all
from wsolbench.errors import InputError, WsolbenchError
from wsolbench.method import Method, MethodInfo, Options
from wsolbench.recipe import Recipe
from wsolbench.registry import DATASETS
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

    def make(folder: str = "run", **fields: Any) -> Trainer:
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
        return Trainer(recipe, method, loader, tmp_path / folder / FILE, CPU, ORIGIN)

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
    assert [f.name for f in (tmp_path / "run").iterdir()] == [FILE]
    assert (tmp_path / "run" / FILE).read_bytes() == before


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
def test_what_is_no_checkpoint_is_named(make: Make, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"no usable checkpoint .*; delete it to train again"):
        make().run()


def test_a_checkpoint_from_other_weights_is_refused(make: Make) -> None:
    make().run()
    other = make()
    other.origin = {**ORIGIN, "weights": {"name": "other"}}
    with pytest.raises(InputError, match="was trained from other weights; delete it"):
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
    with pytest.raises(InputError, match="no usable checkpoint"):
        make().run()


def test_a_checkpoint_of_another_model_is_named(
    make: Make, tmp_path: Path, finished: bytes
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).write_bytes(finished)
    with pytest.raises(InputError, match="no usable checkpoint"):
        make().run()
