"""Tiny ImageNet (Stanford CS231n): 200 classes of ImageNet at 64 x 64 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from wsolbench.annotations import Place, clipped, numbered_lines, numbers, shown
from wsolbench.dataset import Facts
from wsolbench.download import Archive
from wsolbench.index import Contents, IndexedDataset, Row, Sources, folders_in, names_in, required
from wsolbench.registry import register_dataset
from wsolbench.types import Box

_FOLDER = "tiny-imagenet-200"
_SIDE = 64


@register_dataset("tiny-imagenet")
class TinyImagenet(IndexedDataset):
    """The official ``val`` is the test split here: the official test has no labels.

    Labels follow the sorted WordNet ids, not ``wnids.txt``. Boxes are 0-based and hold both
    corners; those without area (41 of the test images) are made one pixel wide.
    """

    title = "Tiny ImageNet"
    layout = f"{_FOLDER}/{{train/<wnid>/{{images/, <wnid>_boxes.txt}}, val/, wnids.txt}}"
    facts = Facts(
        classes=200,
        train=100_000,
        test=10_000,
        test_boxes=10_000,
        past_edge=0,
        class_digest="add4bf0c8712",
    )
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
            _FOLDER,
        ),
    )

    def sources(self) -> Sources:
        """Lists of images and the files of boxes."""
        train, val, told, wnids = self._places()
        classes = folders_in(train)
        files = [required(train, [f"{c}/{c}_boxes.txt"], self.layout) for c in classes]
        images = [required(train, [f"{c}/images"], self.layout) for c in classes]
        return Sources([*files, told, wnids], [train, *images, val])

    def read(self) -> Contents:
        """Read the boxes; every image has one."""
        train, _, told, wnids = self._places()
        classes = folders_in(train)
        listed = {line: place for place, line in numbered_lines(wnids)}
        for odd in sorted(set(classes).symmetric_difference(listed)):
            place = listed.get(odd, Place(wnids, 1))
            raise place.error(f"{odd} is in one of {wnids.name} and {train}", "unpack it again")
        label_of = {wnid: label for label, wnid in enumerate(classes)}
        folders = tqdm([train / wnid for wnid in classes], "boxes of train", disable=None)
        rows = [row for folder in folders for row in self._train_rows(folder, label_of)]
        test = list(self._test_rows(told, label_of))
        thin = sum(row.boxes[0] != box for row, box in test)
        note = f"boxes of test images without area, made one pixel wide or high: {thin}"
        return Contents(
            classes, {"train": [row for row, _ in rows], "test": [row for row, _ in test]}, [note]
        )

    def _places(self) -> tuple[Path, Path, Path, Path]:
        folder = required(self.root, [_FOLDER], self.layout)
        names = ("train", "val/images", "val/val_annotations.txt", "wnids.txt")
        train, val, told, wnids = (required(folder, [name], self.layout) for name in names)
        return train, val, told, wnids

    def _train_rows(self, folder: Path, label_of: dict[str, int]) -> Iterator[tuple[Row, Box]]:
        known = set(names_in(folder / "images"))
        file = folder / f"{folder.name}_boxes.txt"
        for place, name, rest in _lines(file, known):
            image_id = f"train/{folder.name}/{name}"
            path = f"{_FOLDER}/train/{folder.name}/images/{name}"
            yield _row(place, image_id, path, label_of[folder.name], rest)

    def _test_rows(self, file: Path, label_of: dict[str, int]) -> Iterator[tuple[Row, Box]]:
        known = set(names_in(file.parent / "images"))
        for place, name, (wnid, *rest) in _lines(file, known):
            if wnid not in label_of:
                raise place.error(f"class {shown(wnid)} has no folder in train")
            yield _row(place, f"val/{name}", f"{_FOLDER}/val/images/{name}", label_of[wnid], rest)


def _lines(file: Path, known: set[str]) -> Iterator[tuple[Place, str, list[str]]]:
    """Lines between tabs, one for each image that is there and no other."""
    waiting = set(known)
    for place, line in numbered_lines(file):
        name, *rest = line.split("\t")
        if name not in waiting or not rest:
            twice = "stands there already" if name in known else "is not in images/"
            raise place.error(f"{shown(name)} {twice}", "unpack tiny-imagenet-200.zip again")
        waiting.remove(name)
        yield place, name, rest
    if waiting:
        raise Place(file, 1).error(f"there is no line for {min(waiting)}")


def _row(place: Place, image_id: str, path: str, label: int, texts: list[str]) -> tuple[Row, Box]:
    x0, y0, x1, y1 = numbers(place, texts, 4)
    if not all(0 <= value < _SIDE for value in (x0, y0, x1, y1)):
        raise place.error(f"the box {shown(' '.join(texts))} is not within 0 to {_SIDE - 1}")
    box = clipped((x0, y0, x1, y1), (_SIDE, _SIDE))
    return Row(image_id, path, label, (box,)), (x0, y0, x1, y1)
