"""Oxford-IIIT Pet (Parkhi et al. 2012): 37 breeds with trimaps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from wsolbench.annotations import Place, number_in, numbered_lines, plain_path
from wsolbench.data.images import read_indices
from wsolbench.dataset import Facts
from wsolbench.download import Archive
from wsolbench.errors import InputError
from wsolbench.index import Contents, IndexedDataset, Row, Sources, names_in, required
from wsolbench.parallel import prefetched, usable_cores
from wsolbench.registry import register_dataset
from wsolbench.types import Box

_FOLDER = "oxford-iiit-pet"
_SPLITS = ("annotations/trainval.txt", "annotations/test.txt")
_BREEDS = 37
_OBJECT, _BACKGROUND, _BORDER = 1, 2, 3
_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"


@register_dataset("oxford-pet")
class OxfordPet(IndexedDataset):
    """Cats and dogs; ids are the names of the images.

    Masks are the trimaps: 1 is object, 3, the border, does not count. Boxes are the bounds of both,
    x, y, x+w, y+h. The dataset's XML files hold boxes of heads: they are never read.
    """

    title = "Oxford-IIIT Pet"
    layout = f"{_FOLDER}/{{images/, annotations/{{trainval.txt, test.txt, trimaps/}}}}"
    object_values = (_OBJECT, _OBJECT)
    ignore_values = (_BORDER, _BORDER)
    facts = Facts(
        classes=37, train=3_680, test=3_669, test_boxes=3_669, test_masks=3_669, past_edge=0
    )
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            f"{_URL}/images.tar.gz",
            "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            f"{_FOLDER}/images",
            into=_FOLDER,
        ),
        Archive(
            f"{_URL}/annotations.tar.gz",
            "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            f"{_FOLDER}/annotations",
            into=_FOLDER,
        ),
    )

    def sources(self) -> Sources:
        """The lists, the images and the trimaps."""
        folder = required(self.root, [_FOLDER], self.layout)
        lists = [required(folder, [name], self.layout) for name in _SPLITS]
        trimaps = required(folder, ["annotations/trimaps"], self.layout)
        return Sources(lists, [required(folder, ["images"], self.layout)], [trimaps])

    def read(self) -> Contents:
        """Read the lists and every trimap's bounds."""
        lists = [self.root / _FOLDER / name for name in _SPLITS]
        names: dict[int, str] = {}
        train, test = (list(_listed(file, names)) for file in lists)
        missing = sorted(set(range(max(names) + 1)) - names.keys())
        if missing:
            raise Place(lists[0], 1).error(f"no image is of class {missing[0] + 1}")
        classes = [names[label] for label in range(len(names))]
        return Contents(classes, {"train": self._rows(train), "test": self._rows(test)})

    def _rows(self, listed: list[tuple[Place, str, int]]) -> list[Row]:
        folder = self.root / _FOLDER
        known = set(names_in(folder / "images")), set(names_in(folder / "annotations/trimaps"))
        for place, name, _ in listed:
            wanted = (f"images/{name}.jpg", f"annotations/trimaps/{name}.png")
            for file, there in zip(wanted, known, strict=True):
                if file.rpartition("/")[2] not in there:
                    raise place.error(f"{file} does not exist", "unpack the archives again")
        trimaps = [folder / f"annotations/trimaps/{name}.png" for _, name, _ in listed]
        threads = usable_cores()
        boxes = prefetched(_bounds, trimaps, 4 * threads, threads)
        bar = tqdm(boxes, "bounds of trimaps", total=len(listed), disable=None)
        return [
            Row(f"{name}.jpg", f"{_FOLDER}/images/{name}.jpg", label, (box,), (mask,), mask)
            for (_, name, label), box in zip(listed, bar, strict=True)
            for mask in [f"{_FOLDER}/annotations/trimaps/{name}.png"]
        ]


def _listed(file: Path, names: dict[int, str]) -> Iterator[tuple[Place, str, int]]:
    """Place, name and label of each line; ``names`` learns the breeds."""
    for place, line in numbered_lines(file):
        if line.startswith("#"):
            continue
        name, *values = line.split()
        if len(values) != 3:
            raise place.error(f"expected a name and three numbers, got '{line[:60]}'")
        label = number_in(place, values[0], range(1, _BREEDS + 1)) - 1
        breed = plain_path(place, name).rpartition("_")[0]
        if names.setdefault(label, breed) != breed:
            raise place.error(f"class {label + 1} is {names[label]}, and here it is {breed}")
        yield place, name, label


def _bounds(trimap: Path) -> Box:
    values = read_indices(trimap)
    if values.min() < _OBJECT or values.max() > _BORDER:
        raise InputError(f"{trimap} has values that are not 1, 2 or 3; restore it from the dataset")
    seen = values != _BACKGROUND  # one of them is border only
    if not seen.any():
        raise InputError(f"{trimap} shows no object; restore it from the dataset")
    (y0, y1), (x0, x1) = (np.flatnonzero(seen.any(axis=axis))[[0, -1]] for axis in (1, 0))
    return float(x0), float(y0), float(x1 + 1), float(y1 + 1)
