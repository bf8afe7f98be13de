"""FGVC-Aircraft 2013b (Maji et al. 2013): 100 variants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from wsolbench.annotations import Place, clipped, corners, numbered_lines, shown
from wsolbench.dataset import Facts
from wsolbench.download import Archive
from wsolbench.index import Contents, IndexedDataset, Row, Sources, names_in, required
from wsolbench.registry import register_dataset
from wsolbench.truth import image_sizes
from wsolbench.types import Box

_FOLDER = "fgvc-aircraft-2013b/data"
_TEXTS = (
    "variants.txt",
    "images_box.txt",
    "images_variant_trainval.txt",
    "images_variant_test.txt",
)


@register_dataset("fgvc-aircraft")
class FgvcAircraft(IndexedDataset):
    """Train is the official train and val; labels are the lines of ``variants.txt``.

    Boxes are clipped to the image as they are: the official text counts pixels from 1, the numbers
    begin with 0. The copyright line, 20 pixels at the bottom of every image, is left where it is.
    """

    title = "FGVC-Aircraft"
    layout = f"{_FOLDER}/{{images/, {', '.join(_TEXTS)}}}"
    facts = Facts(classes=100, train=6_667, test=3_333, test_boxes=3_333, past_edge=0, tried=False)
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/"
            "fgvc-aircraft-2013b.tar.gz",
            "md5:d4acdd33327262359767eeaa97a4f732",
            "fgvc-aircraft-2013b",
        ),
    )

    def sources(self) -> Sources:
        """The lists and the folder of images."""
        folder = required(self.root, [_FOLDER], self.layout)
        files = [required(folder, [name], self.layout) for name in _TEXTS]
        return Sources(files, [required(folder, ["images"], self.layout)])

    def read(self) -> Contents:
        """Read names, labels and boxes."""
        folder = self.root / _FOLDER
        variants, told, *lists = (folder / name for name in _TEXTS)
        classes = [line for _, line in numbered_lines(variants)]
        boxes = dict(_boxes(told))
        train, test = (list(_rows(file, classes, boxes)) for file in lists)
        return Contents(classes, {"train": train, "test": test})


def _boxes(file: Path) -> Iterator[tuple[str, Box]]:
    seen: set[str] = set()
    for place, line in numbered_lines(file):
        name, *values = line.split()
        if name in seen:
            raise place.error(f"{shown(name)} stands there already", "remove one of them")
        seen.add(name)
        yield name, corners(place, values)


def _rows(file: Path, classes: list[str], boxes: dict[str, Box]) -> Iterator[Row]:
    folder = file.parent / "images"
    known, label_of = set(names_in(folder)), {name: label for label, name in enumerate(classes)}
    listed: list[tuple[str, int]] = []
    for place, line in numbered_lines(file):
        # names of variants hold blanks
        name, _, variant = line.partition(" ")
        _check(place, name, variant, label_of, boxes, known)
        listed.append((name, label_of[variant]))
    sizes = image_sizes([folder / f"{name}.jpg" for name, _ in listed], f"sizes of {file.stem}")
    for (name, label), size in zip(listed, sizes, strict=True):
        box = clipped(boxes[name], size)
        yield Row(f"{name}.jpg", f"{_FOLDER}/images/{name}.jpg", label, (box,))


def _check(
    place: Place,
    name: str,
    variant: str,
    label_of: dict[str, int],
    boxes: dict[str, Box],
    known: set[str],
) -> None:
    if variant not in label_of:
        raise place.error(f"{shown(variant)} is not in {_TEXTS[0]}")
    if name not in boxes:
        raise place.error(f"{shown(name)} has no line in {_TEXTS[1]}")
    if f"{name}.jpg" not in known:
        raise place.error(f"images/{name}.jpg does not exist", "unpack the archive again")
