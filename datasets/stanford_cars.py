"""Stanford Cars (Krause et al. 2013): 196 models, in the tree that torchvision expects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from wsolbench.annotations import Place, plain_path
from wsolbench.dataset import Facts
from wsolbench.download import Archive
from wsolbench.errors import InputError
from wsolbench.index import Contents, IndexedDataset, Row, Sources, names_in, required
from wsolbench.matlab import read_cells, read_structs, whole
from wsolbench.registry import register_dataset
from wsolbench.types import Box

_FOLDER = "stanford_cars"
_TEXTS = ("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat")
_CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
_MOST = 100_000  # pixels
_URL = "http://ai.stanford.edu/~jkrause"


@register_dataset("stanford-cars")
class StanfordCars(IndexedDataset):
    """Ids are ``cars_train/00001.jpg`` and so on; labels are the class numbers less one.

    The boxes' pixels are counted from 1 and hold both corners; here they are counted from 0. The
    numbers of ``car_ims`` are others, and lists of papers often use those.
    """

    title = "Stanford Cars"
    layout = f"{_FOLDER}/{{cars_train/, cars_test/, {', '.join(_TEXTS)}}}"
    facts = Facts(classes=196, train=8_144, test=8_041, test_boxes=8_041, tried=False)
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            f"{_URL}/car196/cars_train.tgz",
            "sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288",
            f"{_FOLDER}/cars_train",
            into=_FOLDER,
        ),
        Archive(
            f"{_URL}/car196/cars_test.tgz",
            "sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243",
            f"{_FOLDER}/cars_test",
            into=_FOLDER,
        ),
        Archive(
            f"{_URL}/cars/car_devkit.tgz",
            "sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd",
            f"{_FOLDER}/devkit",
            into=_FOLDER,
        ),
        Archive(
            f"{_URL}/car196/cars_test_annos_withlabels.mat",
            "sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
            f"{_FOLDER}/cars_test_annos_withlabels.mat",
            into=_FOLDER,
        ),
    )
    steps: ClassVar[tuple[str, ...]] = (
        "Stanford's host is said to be dead. Kaggle's jessicali9530/stanford-cars-dataset has the",
        "images, pytorch/vision's issue 7545 says whence devkit and",
        "cars_test_annos_withlabels.mat come. Put all as the layout says.",
    )

    def sources(self) -> Sources:
        """The lists and the folders of images."""
        folder = required(self.root, [_FOLDER], self.layout)
        files = [required(folder, [name], self.layout) for name in _TEXTS]
        return Sources(files, [self._images("cars_train"), self._images("cars_test")])

    def read(self) -> Contents:
        """Read names, labels and boxes."""
        folder = self.root / _FOLDER
        names = read_cells(folder / _TEXTS[0], "class_names")
        return Contents(
            names,
            {
                "train": list(self._rows(folder / _TEXTS[1], "cars_train", len(names))),
                "test": list(self._rows(folder / _TEXTS[2], "cars_test", len(names))),
            },
        )

    def _images(self, name: str) -> Path:
        # one of the mirrors has cars_test/cars_test
        places = [f"{_FOLDER}/{name}/{name}", f"{_FOLDER}/{name}"]
        found = [self.root / place for place in places if (self.root / place).is_dir()]
        return found[0] if found else required(self.root, places[1:], self.layout)

    def _rows(self, file: Path, split: str, classes: int) -> Iterator[Row]:
        folder = self._images(split)
        known = set(names_in(folder))
        fields = (*_CORNERS, "class", "fname")
        rows = read_structs(file, "annotations", fields)
        for number, row in enumerate(rows, start=1):
            where = f"annotations({number})"
            name = plain_path(Place(file, number), str(row["fname"]))
            if name not in known:
                raise InputError(f"{file}: {where} names {name}, which is not in {folder}")
            label = whole(file, f"{where}.class", row["class"], 1, classes) - 1
            box = _box(file, where, row)
            path = (folder / name).relative_to(self.root).as_posix()
            yield Row(f"{split}/{name}", path, label, (box,))
        surplus = known - {str(row["fname"]) for row in rows}
        if surplus:
            raise InputError(
                f"{file} lacks {min(surplus)} of {folder}; restore it from the dataset"
            )


def _box(file: Path, where: str, row: dict[str, Any]) -> Box:
    x0, y0, x1, y1 = (
        whole(file, f"{where}.{corner}", row[corner], 1, _MOST) - 1 for corner in _CORNERS
    )
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"{file}: {where} has a box without area; restore it from the dataset")
    return float(x0), float(y0), float(x1), float(y1)
