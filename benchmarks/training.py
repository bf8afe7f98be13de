"""Speed and memory of SAT and TS-CAM: the literal form against ours in one run, and of the input.

    python benchmarks/training.py
    python benchmarks/training.py --compile --device cuda

The literal form makes every attention matrix and the maps of all classes, as the released code does
(``tests/oracles.py``, which the tests hold to the released models); it has the same weights and the
same optimiser. Forms take turns on the same images, in this order and in the other; rates are
medians, and a ratio is the median of those within a turn, for a machine that others share is now
faster, now slower. In float32 both must say the same, or the run fails. Weights are random and
paths are not dropped; 200 classes. Memory is what a step takes beside what was there before it. A
step is forward, backward and AdamW; inference, in batches as scoring has them, makes the map of
each image's own class and all logits, where the literal TS-CAM makes maps of all classes. The
second table trains from JPEGs that were read before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "benchmarks", "tests")]

import numpy as np
import oracles
import torch
import torch.nn.functional as F
from machine import heading, print_row, print_titles
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wsolbench import backbones
from wsolbench.columns import precision_text
from wsolbench.compiled import compile_method
from wsolbench.cost import PeakMemory, wait_for
from wsolbench.data.loader import DecodedImages, TrainLoader
from wsolbench.dataset import Sample
from wsolbench.device import (
    allow_tf32,
    choose_device,
    emulates_bf16,
    has_tf32,
    keep_freed_memory,
    make_deterministic,
)
from wsolbench.engine.schedule import make_optimizer
from wsolbench.method import Method
from wsolbench.predictions import EVAL_BATCH
from wsolbench.recipe import Optim, Precision
from wsolbench.registry import METHODS
from wsolbench.types import Batch

CLASSES = 200
SIDE, RESIZED = 224, 256
BACKBONES = {"DeiT-Tiny": "deit_tiny_patch16_224", "DeiT-Small": "deit_small_patch16_224"}
NAMES = {"sat": "SAT", "ts-cam": "TS-CAM"}
AREA_TARGET = 0.25
OPTIM = Optim(name="adamw", lr=1e-4, weight_decay=0.05)
#: largest difference of a loss or map in float32, as a share of the largest value
TOLERANCE = 1e-4
#: JPEGs of the second table, and their size, which is that of CUB's photographs
PHOTOGRAPHS, WIDTH, HEIGHT = 96, 500, 375

Loss = Callable[[Batch], Tensor]
Maps = Callable[[Batch], Tensor]


class Form(NamedTuple):
    """A way to compute a method: the loss of a batch, and the maps of its own classes."""

    name: str
    loss: Loss
    maps: Maps


def forms(name: str, method: Any, compiled: bool) -> list[Form]:
    """The forms of a method, all on the same parameters."""
    ours = Form("ours", *_calls(method))
    found = [_literal(name, method), ours]
    if compiled:
        compile_method(method)
        found.append(Form("compiled", *_calls(method)))
    return found


def _calls(method: Method) -> tuple[Loss, Maps]:
    train, localize = method.training_step, method.localize

    def maps(batch: Batch) -> Tensor:
        found = localize(batch.image, batch.label).maps
        assert found is not None
        return found

    return lambda batch: train(batch, 0.0)["loss"], maps


def _literal(name: str, method: Any) -> Form:
    state = {n.removeprefix("vit."): value for n, value in method.named_parameters()}
    heads = method.vit.blocks[0].attn.num_heads
    if name == "sat":
        forward = partial(oracles.lean_sat, state, heads=heads)
        return Form("literal", partial(_sat_loss, method, forward), lambda b: forward(b.image)[1])
    return Form(
        "literal",
        lambda b: F.cross_entropy(
            oracles.lean_ts_cam(state, b.image, heads, train=True)[0], b.label
        ),
        lambda b: _of_own_class(oracles.lean_ts_cam(state, b.image, heads, train=False)[1], b),
    )


def _sat_loss(method: Any, forward: Callable[[Tensor], tuple[Tensor, Tensor]], b: Batch) -> Tensor:
    logits, maps = forward(b.image)
    return oracles.sat_losses(logits, maps, method.smoothing, b.label, AREA_TARGET)["loss"]


def _of_own_class(maps: Tensor, batch: Batch) -> Tensor:
    return maps[torch.arange(len(maps), device=maps.device), batch.label]


@dataclass(frozen=True)
class Setting:
    """Where and in which precision is computed."""

    device: torch.device
    precision: Precision

    def run(self, function: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        """Call a form under this precision."""
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return function(batch)

    def batch(self, size: int) -> Batch:
        """Random images and labels."""
        rng = torch.Generator().manual_seed(0)
        image = torch.randn(size, 3, SIDE, SIDE, generator=rng).to(self.device)
        label = torch.randint(CLASSES, (size,), generator=rng).to(self.device)
        return Batch(image, label, ("",) * size)


def step_of(setting: Setting, method: Method, loss: Loss) -> Callable[[Batch], None]:
    """A training step of one form."""
    groups = method.param_groups(OPTIM.lr, OPTIM.weight_decay)
    optimizer = make_optimizer(OPTIM, groups)

    def step(batch: Batch) -> None:
        value = setting.run(loss, batch)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return step


def inference_of(setting: Setting, maps: Maps) -> Callable[[Batch], None]:
    """Localization by one form."""

    def infer(batch: Batch) -> None:
        with torch.inference_mode():
            setting.run(maps, batch)

    return infer


class Measured(NamedTuple):
    """Images a second, how many times as fast as the first form, and bytes."""

    rate: float
    ratio: float
    memory: int


def measured(work: Sequence[Callable[[Batch], None]], batch: Batch, rounds: int) -> list[Measured]:
    """Measure several ways to do one thing, which take turns."""
    device = batch.image.device
    for do in work:  # allocators, kernels and graphs
        do(batch)
    memory = [_memory(partial(do, batch), device) for do in work]
    times = _turns([partial(do, batch) for do in work], rounds, device)
    rates = len(batch.label) / np.median(times, axis=0)
    ratios = np.median(times[:, :1] / times, axis=0)
    return [Measured(*values) for values in zip(rates, ratios, memory, strict=True)]


def _turns(
    ways: Sequence[Callable[[], object]], rounds: int, device: torch.device
) -> NDArray[np.float64]:
    """Seconds (turns, ways); every second turn goes backwards, so that none is always first."""
    times, forwards = np.zeros((rounds, len(ways))), range(len(ways))
    for turn in range(rounds):
        for index in reversed(forwards) if turn % 2 else forwards:
            times[turn, index] = _seconds(ways[index], device)
    return times


def _seconds(do: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    do()
    wait_for(device)
    return time.perf_counter() - start


def _memory(do: Callable[[], object], device: torch.device) -> int:
    """Bytes that are taken meanwhile, beside what is taken already."""
    gc.collect()
    if device.type == "cpu" and sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed would count as taken already
    memory = PeakMemory(device)
    memory.start()
    before = memory.peak() if device.type == "cpu" else torch.cuda.memory_allocated(device)
    do()
    return memory.peak() - before


def check_alike(of: Sequence[Form], batch: Batch) -> None:
    """Fail where two forms differ in float32."""
    for what in ("loss", "maps"):
        with torch.no_grad():
            first, *others = (getattr(form, what)(batch) for form in of)
        for other in others:
            gap, scale = (other - first).abs().max().item(), first.abs().max().item()
            assert gap <= TOLERANCE * scale, f"{what} of {of[0].name} differ by {gap} of {scale}"


def build(name: str, backbone: str, device: torch.device) -> Method:
    """A method with random weights."""
    torch.manual_seed(0)
    vit = backbones.create(BACKBONES[backbone], pretrained=False, image_size=SIDE)
    cls = METHODS.get(name)
    return cls(vit, CLASSES, cls.Options()).to(device)


def compared(
    name: str, backbone: str, setting: Setting, batch_size: int, rounds: int, compiled: bool
) -> dict[str, list[tuple[str, Measured]]]:
    """Training and inference of each form of a method."""
    method = build(name, backbone, setting.device)
    found = forms(name, method, compiled)
    allow_tf32(setting.precision == "tf32")
    if setting.precision == "32":
        check_alike(found, setting.batch(batch_size))
    work = {
        "training step": [step_of(setting, method.train(), form.loss) for form in found],
        "inference": [inference_of(setting, form.maps) for form in found],
    }
    sizes = {"training step": batch_size, "inference": EVAL_BATCH}
    names = [form.name for form in found]
    result = {}
    for what, each in work.items():
        method.train(what != "inference")
        rates = measured(each, setting.batch(sizes[what]), rounds)
        result[what] = list(zip(names, rates, strict=True))
    return result


def precisions(device: torch.device) -> list[Precision]:
    """Those that are worth measuring on a device."""
    bf16 = not emulates_bf16(device)
    return ["32", *(["tf32"] if has_tf32(device) else []), *(["bf16"] if bf16 else [])]  # type: ignore[list-item]


def table(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print the first table."""
    names = ["literal", "ours", *(["compiled"] if arguments.compile else [])]
    heads = ["", "backbone", "precision", "", *(f"{n}, images/s" for n in names)]
    compared_to = [f"{n} : literal" for n in names[1:]] + [f"{names[-1]} : literal fp32"]
    print_titles([*heads, *compared_to, *(f"{n}, MiB" for n in names)])
    for backbone in BACKBONES:
        for name in NAMES:
            whole: dict[str, float] = {}
            for precision in arguments.precision or precisions(device):
                setting, size = Setting(device, precision), arguments.batch_size
                found = compared(name, backbone, setting, size, arguments.rounds, arguments.compile)
                for what, each in found.items():
                    rates, ratios, memory = zip(*(m for _, m in each), strict=True)
                    whole.setdefault(what, rates[0])
                    to_fp32 = ratios[-1] * rates[0] / whole[what]
                    shown = precision_text(precision)
                    cells = [NAMES[name], backbone, shown, what, *(f"{r:.1f}" for r in rates)]
                    cells += [f"{r:.2f}x" for r in (*ratios[1:], to_fp32)]
                    cells += [f"{m / 2**20:.0f}" for m in memory]
                    print_row(cells)


# ------------------------------------------------------------------------------------- input


class Epochs(Protocol):
    """What the second table needs of a loader."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""


class Input(NamedTuple):
    """Images a second of the loader alone, with training, and of training on made-up images.

    ``share`` is how much of the last's speed the second has.
    """

    alone: float
    together: float
    synthetic: float
    share: float


def input_rates(loader: Epochs, step: Callable[[Batch], object], rounds: int) -> Input:
    """Measure a loader whose images were read before, see :class:`Input`."""
    batches = list(loader.epoch(1))  # reads them
    device, images = batches[0].image.device, sum(len(b.label) for b in batches)
    fixed = [Batch(torch.randn_like(b.image), b.label, b.image_id) for b in batches]
    del batches
    ways: list[Callable[[], object]] = [
        lambda: sum(1 for _ in loader.epoch(2)),
        lambda: [step(b) for b in loader.epoch(2)],
        lambda: [step(b) for b in fixed],
    ]
    times = _turns(ways, rounds, device)
    share = np.median(times[:, 2] / times[:, 1])
    alone, together, synthetic = images / np.median(times, axis=0)
    return Input(alone, together, synthetic, float(share))


def photograph_loader(
    folder: Path, batch_size: int, device: torch.device, cache: Path | None = None
) -> TrainLoader:
    """The suite's own loader on drawn JPEGs of the size of photographs.

    With a ``cache`` memory has no room for them.
    """
    rng = np.random.default_rng(0)
    samples = []
    for index in range(PHOTOGRAPHS):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        file = folder / f"{index}.jpg"
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(file, quality=90)
        samples.append(Sample(file.name, file, index % CLASSES))
    images = DecodedImages(samples, RESIZED, None if cache is None else 0, cache)
    statistics = ((0.5,) * 3,) * 2
    return TrainLoader(samples, images, batch_size, SIDE, 0.5, *statistics, 0, False, device)


def input_table(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print the second table."""
    precision = (arguments.precision or precisions(device))[-1]
    size = min(arguments.batch_size, PHOTOGRAPHS)
    setting = Setting(device, precision)
    method = build("sat", "DeiT-Tiny", device).train()
    allow_tf32(precision == "tf32")
    step = step_of(setting, method, _calls(method)[0])
    columns = [f"{name}, images/s" for name in Input._fields[:3]]
    print_titles(["SAT, DeiT-Tiny", "decoded images", *columns, "share"])
    shown = precision_text(precision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for where, cache in (("in memory", None), ("on a disk", folder / "cache")):
            loader = photograph_loader(folder, size, device, cache)
            *rates, share = input_rates(loader, step, min(arguments.rounds, 5))
            print_row([shown, where, *(f"{rate:.1f}" for rate in rates), f"{share:.0%}"])


def main() -> None:
    """Print the machine and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, help="recipes' 32 on a processor, else 256")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each form")
    parser.add_argument("--precision", nargs="+", choices=("32", "tf32", "bf16"))
    parser.add_argument("--compile", action="store_true", help="a third form: ours, compiled")
    arguments = parser.parse_args()
    make_deterministic()
    device = choose_device(arguments.device)
    keep_freed_memory(device)
    arguments.batch_size = arguments.batch_size or (32 if device.type == "cpu" else 256)
    steps = f"training in batches of {arguments.batch_size}, inference of {EVAL_BATCH}"
    print(f"{heading(device)}; {steps}; {SIDE}x{SIDE}, medians of {arguments.rounds} turns")
    if "bf16" not in (arguments.precision or precisions(device)):
        print("bf16 is emulated by this processor and was left out.")
    print()
    table(arguments, device)
    print()
    input_table(arguments, device)


if __name__ == "__main__":
    main()
