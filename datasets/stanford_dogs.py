"""Stanford Dogs (Khosla et al. 2011): 120 breeds, cut out of ImageNet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from wsolbench.annotations import Place, clipped, plain_path, read_voc, scaled
from wsolbench.dataset import Facts
from wsolbench.download import Archive
from wsolbench.errors import InputError
from wsolbench.index import Contents, IndexedDataset, Row, Sources, folders_in, names_in, required
from wsolbench.matlab import read_cells
from wsolbench.registry import register_dataset
from wsolbench.truth import image_sizes

_FOLDER = "stanford_dogs"
_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs"


@register_dataset("stanford-dogs")
class StanfordDogs(IndexedDataset):
    """Labels follow the sorted folders, that is the WordNet ids; ids are the paths of the images.

    Boxes are 0-based and hold both corners; several an image. Many images are in ImageNet's
    training set: a backbone pre-trained there has seen some of the test images.
    """

    title = "Stanford Dogs"
    layout = f"{_FOLDER}/{{Images/, Annotation/, train_list.mat, test_list.mat}}"
    facts = Facts(classes=120, train=12_000, test=8_580, test_boxes=9_249, past_edge=0, tried=False)
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            f"{_URL}/images.tar",
            "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            f"{_FOLDER}/Images",
            into=_FOLDER,
        ),
        Archive(
            f"{_URL}/annotation.tar",
            "sha256:662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
            f"{_FOLDER}/Annotation",
            into=_FOLDER,
        ),
        Archive(
            f"{_URL}/lists.tar",
            "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            f"{_FOLDER}/train_list.mat",
            into=_FOLDER,
        ),
    )

    def sources(self) -> Sources:
        """Lists of images, the XML files and the lists of the splits."""
        images, boxes, *lists = self._places()
        listings = [images / name for name in folders_in(images)]
        return Sources(lists, [images, *listings], [boxes / name for name in folders_in(boxes)])

    def read(self) -> Contents:
        """Read lists and boxes."""
        images, boxes, train, test = self._places()
        classes = folders_in(images)
        return Contents(
            classes,
            {
                "train": list(self._rows(train, images, boxes, classes)),
                "test": list(self._rows(test, images, boxes, classes)),
            },
        )

    def _places(self) -> tuple[Path, Path, Path, Path]:
        folder = required(self.root, [_FOLDER], self.layout)
        names = ("Images", "Annotation", "train_list.mat", "test_list.mat")
        images, boxes, train, test = (required(folder, [name], self.layout) for name in names)
        return images, boxes, train, test

    def _rows(self, file: Path, images: Path, boxes: Path, classes: Sequence[str]) -> Iterator[Row]:
        names = _listed(file, images, classes)
        sizes = image_sizes([images / name for name in names], f"sizes of {file.stem}")
        for name, size in zip(tqdm(names, file.stem, disable=None), sizes, strict=True):
            xml = boxes / name.rpartition(".")[0]  # without an ending
            voc = read_voc(xml)
            if not voc.objects:
                raise Place(xml, 1).error("there is no object")
            found = [clipped(scaled(o.box, voc.size or size, size), size) for o in voc.objects]
            label = classes.index(name.partition("/")[0])
            yield Row(name, f"{_FOLDER}/Images/{name}", label, tuple(found))


def _listed(file: Path, images: Path, classes: Sequence[str]) -> list[str]:
    names = [plain_path(Place(file, 1), name) for name in read_cells(file, "file_list")]
    on_disk = {f"{folder}/{name}" for folder in classes for name in names_in(images / folder)}
    missing = [name for name in names if name not in on_disk]
    if missing:
        raise InputError(
            f"{file} names {len(missing)} images that are not in {images}, such as {missing[0]}; "
            "unpack images.tar again"
        )
    return names
