"""A sound dataset, and datasets with one fault each, such as plugins have.

Without torch: a check opens them in another process.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from wsolbench.dataset import Dataset, OfficialSplit, Sample, Split, without_truth

SIDE = 20
NAMES = ("red", "green", "blue")
COUNTS = {"train": 4, "test": 2}


class SoundData(Dataset):
    """Three classes of drawn images in ``<split>/<class>-<number>.png``."""

    name = "sound-data"
    title = "Sound"
    layout = "{train,test}/*.png"

    @property
    def class_names(self) -> tuple[str, ...]:
        return NAMES

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        return [
            self.sample(split, label, number)
            for label in range(len(NAMES))
            for number in range(COUNTS[split])
        ]

    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        name = f"{split}/{label}-{number}.png"
        # reaching over the edge is legal
        box = (-2.0, 3.0, SIDE + 2.0, 9.0)
        return Sample(image_id=name, path=self.root / name, label=label, boxes=(box,))


def draw_sound_data(root: Path) -> Path:
    """Write the files of :class:`SoundData` and return ``root``."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for sample in SoundData(root).official(split):
            sample.path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(sample.path)
    return root


class MaskData(SoundData):
    """Masks in place of boxes; the image itself stands in for one."""

    task = "mask"

    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        sample = super().sample(split, label, number)
        return replace(sample, boxes=(), instance_masks=(sample.path,))


class Untitled(SoundData):
    title = " "


class TwoNamedAlike(SoundData):
    @property
    def class_names(self) -> tuple[str, ...]:
        return ("red", "green", "red")


class IdsWithoutFolder(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), image_id=f"{number}.png")


class IdsThatEscape(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(
            super().sample(split, label, number), image_id=f"../{split}/{label}-{number}"
        )


class OrderOfASet(SoundData):
    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        return list(set(super().official(split)))


class ShuffledAtOpening(SoundData):
    def __init__(self, root: Path, holdout: int = 0) -> None:
        super().__init__(root, holdout)
        self.seed = random.SystemRandom().random()

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        samples = list(super().official(split))
        random.Random(self.seed).shuffle(samples)
        return samples


class TestImageInTraining(SoundData):
    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        samples = list(super().official(split))
        return samples if split == "train" else [*samples, self.sample("train", 0, 0)]


class TestFileInTraining(SoundData):
    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        samples = list(super().official(split))
        copied = replace(self.sample("train", 0, 0), image_id="test/copy.png")
        return samples if split == "train" else [*samples, copied]


class BoxesInTraining(SoundData):
    def samples(self, split: Split) -> Sequence[Sample]:
        return list(self.official("train")) if split == "train" else super().samples(split)


class LabelsFromOne(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), label=label + 1)


class ClassOfTestOnly(SoundData):
    @property
    def class_names(self) -> tuple[str, ...]:
        return (*NAMES, "white")


class MissingFile(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), path=self.root / f"{label}-{number}")


class NoImage(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), path=Path(__file__))


class MissingMask(MaskData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        sample = super().sample(split, label, number)
        return replace(sample, instance_masks=(*sample.instance_masks, self.root / "mask.png"))


class BoxOutside(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        box = (SIDE + 1.0, 0.0, SIDE + 5.0, 5.0)
        return replace(super().sample(split, label, number), boxes=(box,))


class BoxOfWidthAndHeight(SoundData):
    """x, y, width, height, taken for corners."""

    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), boxes=((8.0, 8.0, 5.0, 5.0),))


class NoBoxes(SoundData):
    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), boxes=())


class DrawnHoldout(SoundData):
    """Another draw for each size, so that the smaller one is not in the larger one."""

    def samples(self, split: Split) -> Sequence[Sample]:
        if split == "test":
            return super().samples(split)
        turned = [
            (int(s.path.stem[2:]) - self.holdout) % COUNTS["train"] for s in self.official("train")
        ]
        drawn = zip(self.official("train"), turned, strict=True)
        if split == "val":
            return [s for s, place in drawn if place < self.holdout]
        return [without_truth(s) for s, place in drawn if place >= self.holdout]


class HeldOutAndTrained(SoundData):
    def samples(self, split: Split) -> Sequence[Sample]:
        unheld = type(self)(self.root) if self.holdout and split == "train" else None
        return unheld.samples("train") if unheld else super().samples(split)


class BoxesOfSome(SoundData):
    """Half of the test images have none."""

    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        found = super().sample(split, label, number)
        return replace(found, boxes=()) if split == "test" and number else found


class BoxesOfTestAlone(SoundData):
    """What is held out cannot choose a threshold."""

    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        found = super().sample(split, label, number)
        return found if split == "test" else replace(found, boxes=())


class NoMasks(SoundData):
    task = "mask"

    def sample(self, split: OfficialSplit, label: int, number: int) -> Sample:
        return replace(super().sample(split, label, number), boxes=())


FAULTS: dict[type[Dataset], tuple[str, str]] = {
    Untitled: ("declarations", "title is no text: ' '"),
    TwoNamedAlike: ("declarations", "2 classes are named 'red'"),
    IdsWithoutFolder: ("unique-ids", "images of train are named"),
    IdsThatEscape: ("unique-ids", "of train is no plain path"),
    OrderOfASet: ("stable-order", "another process gives other samples"),
    ShuffledAtOpening: ("stable-order", "two openings differ"),
    TestImageInTraining: ("disjoint-splits", "image_id train/0-0.png is in"),
    TestFileInTraining: ("disjoint-splits", "train/0-0.png is in"),
    BoxesInTraining: ("training-without-truth", "train/0-0.png carries more than its label"),
    LabelsFromOne: ("labels", "has label 3 of 3"),
    ClassOfTestOnly: ("labels", "1 classes have no training image"),
    MissingFile: ("files", "does not exist"),
    NoImage: ("files", "mutants.py is no readable image"),
    MissingMask: ("files", "mask.png does not exist"),
    BoxOutside: ("boxes", "has a box outside: "),
    BoxOfWidthAndHeight: ("boxes", "has a box without area: "),
    NoBoxes: ("boxes", "a dataset of boxes has none"),
    BoxesOfSome: ("truth", "test image test/0-1.png has no box, it cannot be scored"),
    BoxesOfTestAlone: ("truth", "has no box, it cannot be scored"),
    NoMasks: ("truth", "has no mask, it cannot be scored"),
    DrawnHoldout: ("holdout", "a hold-out of 2 does not contain that of 1"),
    HeldOutAndTrained: ("holdout", "do not add up to all of train"),
}
