"""Tiny datasets in their official layouts, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("001.Red_Finch", "002.Green_Finch", "003.Blue_Finch")
COLOURS = ((220, 30, 30), (30, 200, 30), (30, 30, 220))
_TEXTS = ("images", "image_class_labels", "bounding_boxes", "train_test_split", "classes")


@dataclass(frozen=True)
class _Bird:
    """One drawn image: its running number, path below ``images``, class number, box, split."""

    number: int
    name: str
    class_number: int
    box: tuple[int, int, int, int]
    is_train: bool


def make_cub(root: Path, train: int = 8, test: int = 4, seed: int = 0) -> Path:
    """Write ``root/CUB_200_2011`` with three classes in the official layout and return ``root``.

    Every image is noise of about 80x60 pixels with one rectangle; its colour says the class and its
    edges are the box. Train and test images alternate as far as they go, as in the original.
    """
    rng = np.random.default_rng(seed)
    folder = root / "CUB_200_2011"
    birds: list[_Bird] = []
    for label, class_name in enumerate(CLASSES):
        (folder / "images" / class_name).mkdir(parents=True)
        for i in range(train + test):
            number = len(birds) + 1
            name = f"{class_name}/{class_name[4:]}_{i + 1:04d}_{number}.jpg"
            pixels, box = _draw(rng, COLOURS[label])
            Image.fromarray(pixels).save(folder / "images" / name, quality=95)
            is_train = i % 2 == 0 if i < 2 * min(train, test) else train > test
            birds.append(_Bird(number, name, label + 1, box, is_train))
    _write_texts(folder, birds)
    return root


def _draw(
    rng: np.random.Generator, colour: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """Return an image (H, W, 3) and the box x, y, width, height of its rectangle."""
    width, height = int(rng.integers(72, 90)), int(rng.integers(54, 68))
    w, h = int(rng.integers(24, 44)), int(rng.integers(18, 36))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    pixels = rng.integers(90, 166, (height, width, 3), dtype=np.uint8)
    pixels[y : y + h, x : x + w] = colour
    return pixels, (x, y, w, h)


def _write_texts(folder: Path, birds: list[_Bird]) -> None:
    lines: dict[str, list[str]] = {text: [] for text in _TEXTS}
    for bird in birds:
        lines["images"].append(f"{bird.number} {bird.name}")
        lines["image_class_labels"].append(f"{bird.number} {bird.class_number}")
        box = " ".join(f"{value:.1f}" for value in bird.box)
        lines["bounding_boxes"].append(f"{bird.number} {box}")
        lines["train_test_split"].append(f"{bird.number} {int(bird.is_train)}")
    lines["classes"] = [f"{i + 1} {name}" for i, name in enumerate(CLASSES)]
    for text, content in lines.items():
        (folder / f"{text}.txt").write_text("".join(f"{line}\n" for line in content))
