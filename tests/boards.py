"""A small results folder with all that a page shows, and names that try to be more than text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from records import make_result

from wsolbench.dataset import Dataset, OfficialSplit, Sample
from wsolbench.examples import collect
from wsolbench.metrics.scorer import Scorer
from wsolbench.protocol import load_protocol
from wsolbench.results import Result, save_result
from wsolbench.types import Prediction, Truth

_OWN = "document.title='owned'"
EVIL = f'<img src=x onerror="{_OWN}"></script><script>{_OWN}</script>&'
METHODS = ("alpha", "beta", "<b onclick=alert(1)>gamma")
SIDE, COUNT = 60, 10


class Photos(Dataset):
    """Bright squares on grey, one a picture."""

    name = "photos"
    title = f"Photos {EVIL}"
    layout = "photos/"
    free: ClassVar[bool] = True

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("plain", f"class {EVIL}")

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        return [
            Sample(f"{split}<i>{n}", self.root / "photos" / f"{n}.png", n % 2, (_box(n),))
            for n in range(COUNT)
        ]


class Private(Photos):
    """The same pictures under terms."""

    free: ClassVar[bool] = False


def _box(number: int) -> tuple[float, float, float, float]:
    x, y = 4.0 * number, 30.0 - 2 * number
    return x, y, x + 20, y + 24


def make_photos(root: Path) -> Photos:
    """Write the pictures; twice as wide as high."""
    (root / "photos").mkdir(parents=True)
    for n in range(COUNT):
        pixels = np.full((SIDE, 2 * SIDE, 3), 90, np.uint8)
        pixels[:, :, 2] = np.linspace(0, 255, 2 * SIDE).astype(np.uint8)
        x0, y0, x1, y1 = map(int, _box(n))
        pixels[y0:y1, x0:x1] = (255, 220, 40)
        Image.fromarray(pixels).save(root / "photos" / f"{n}.png")
    return Photos(root)


def make_board(folder: Path, photos: Photos) -> list[Result]:
    """Write records of three methods and two seeds, each worse than the one before."""
    return [
        _scored(folder, photos, method, seed, noise)
        for noise, method in enumerate(METHODS)
        for seed in (0, 1)
    ]


def add_few_shots(folder: Path, photos: Photos) -> list[Result]:
    """Write records of trainings on one and three images a class, in two draws."""
    made = [_few(photos, m, shots, draw) for m in METHODS for shots in (1, 3) for draw in (0, 1)]
    for result in made:
        save_result(result, folder)
    return made


def _few(photos: Photos, method: str, shots: int, draw: int) -> Result:
    return make_result(
        {
            **{"method": method, "dataset": "photos", "backbone": f"net {EVIL}"},
            **{"shots": shots, "draw": draw, "iterations": 30},
        },
        protocol={"name": "standard", "title": f"Standard {EVIL}"},
        figures={"gt_known_loc": 40.0 + 10 * shots + draw + METHODS.index(method)},
        dataset={"name": "photos", "title": photos.title, "fingerprint": photos.fingerprint()},
        command=f"wsolbench run {EVIL} --set shots={shots} --seed 0",
        iterations=30,
    )


def _scored(folder: Path, photos: Photos, method: str, seed: int, noise: int) -> Result:
    draw = np.random.default_rng([seed, noise])
    stream = [_predicted(sample, noise, draw) for sample in photos.samples("test")]
    scorer = Scorer(load_protocol("standard"))
    for (_, prediction), sample in zip(stream, photos.samples("test"), strict=True):
        boxes = np.array(sample.boxes)
        size = (2 * SIDE, SIDE)
        scorer.update([Truth(sample.label, size, boxes, image_id=sample.image_id)], prediction)
    threshold = scorer.select_threshold()
    scores = scorer.compute(threshold)
    result = make_result(
        {"method": method, "seed": seed, "dataset": "photos", "backbone": f"net {EVIL}"},
        protocol={"name": "standard", "title": f"Standard {EVIL}"},
        figures=scores.figures,
        oracle=["max_box_acc", "max_box_acc_v2"],
        threshold=scores.threshold,
        dead_maps=scores.dead_maps,
        curves={name: tuple(values) for name, values in scores.curves.items()},
        dataset={"name": "photos", "title": photos.title, "fingerprint": photos.fingerprint()},
        command=f"wsolbench run {EVIL} --seed {seed}",
        supervision=f"labels {EVIL}",
        pretraining=EVIL,
    )
    save_result(result, folder, scorer.image_table(), collect(stream))
    return result


def _predicted(
    sample: Sample, noise: int, draw: np.random.Generator
) -> tuple[tuple[str], Prediction]:
    score_map = torch.from_numpy(_map(sample, noise, draw))[None]
    logits = torch.zeros(1, 2)
    logits[0, sample.label] = 1.0 if draw.random() > 0.2 * noise else -1.0
    return (sample.image_id,), Prediction(maps=score_map, logits=logits)


def _map(sample: Sample, noise: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """The true box's pixels at 15 x 30, shifted and blurred by noise; one map is dead."""
    if noise == len(METHODS) - 1 and sample.image_id.endswith("9"):
        return np.zeros((15, 30))
    x0, y0, x1, y1 = (value / 4 for value in sample.boxes[0])
    shift = draw.uniform(-2.5, 2.5, 2) * noise
    y, x = np.mgrid[0:15, 0:30] + 0.5
    inside = (np.abs(x - (x0 + x1) / 2 - shift[0]) < (x1 - x0) / 2) & (
        np.abs(y - (y0 + y1) / 2 - shift[1]) < (y1 - y0) / 2
    )
    return np.asarray(inside + 0.1 * noise * draw.random(inside.shape))
