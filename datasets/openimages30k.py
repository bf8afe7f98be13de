"""OpenImages30k (Choe et al. 2020): masks of 100 classes, without boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, get_args

from wsolbench.annotations import Place, number_in, plain_path, read_rows
from wsolbench.dataset import Facts, Split
from wsolbench.download import Archive
from wsolbench.errors import InputError
from wsolbench.index import Contents, IndexedDataset, Row, Sources, folders_in, names_in, required
from wsolbench.registry import register_dataset

_IMAGES, _LISTS = "OpenImages", "metadata/OpenImages"
_TEXTS = ("class_labels.txt", "localization.txt")
#: lists of each split; training images have no masks
_FILES = [
    (split, name)
    for split in get_args(Split)
    for name in _TEXTS
    if (split, name) != ("train", "localization.txt")
]
_RAW = f"https://raw.githubusercontent.com/clovaai/wsolevaluation/master/{_LISTS}"


@register_dataset("openimages30k")
class OpenImages30k(IndexedDataset):
    """Masks of single instances and regions to ignore; the figure is PxAP.

    Labels follow the sorted folders, as the lists of Choe et al. have them; ids are their paths.
    """

    title = "OpenImages30k"
    task = "mask"
    layout = (
        "OpenImages/{train,val,test}/<class>/{<id>.jpg, <id>_m<class>_<8 hex>.png, "
        "<id>_ignore.png} and metadata/OpenImages/{train,val,test}/{class_labels,localization}.txt"
    )
    holdout_title = "OpenImages30k val"
    facts = Facts(
        classes=100, train=29_819, test=5_000, holdout=2_500, test_masks=7_632, tried=False
    )
    archives: ClassVar[tuple[Archive, ...]] = tuple(
        Archive(f"{_RAW}/{split}/{name}", None, f"{_LISTS}/{split}/{name}", f"{_LISTS}/{split}")
        for split, name in _FILES
    )
    steps: ClassVar[tuple[str, ...]] = (
        "Images and masks lie in two archives of Google Drive, without a checksum:",
        "1. https://drive.google.com/open?id=1oOb4WQ-lb8SYppHEg3lWnpHk1X8WVO4e (images)",
        "2. https://drive.google.com/open?id=1eu1YvcZlsEalhXTS_5Ni5tkImCliIPie (masks)",
        "3. unpack both so that DATA_ROOT/OpenImages/{train,val,test}/ is there",
    )

    def sources(self) -> Sources:
        """The lists, and the folders of images and masks."""
        images = required(self.root, [_IMAGES], self.layout)
        files = [
            required(self.root, [f"{_LISTS}/{split}/{name}"], self.layout) for split, name in _FILES
        ]
        splits = [required(images, [split], self.layout) for split in get_args(Split)]
        inside = [split / name for split in splits for name in folders_in(split)]
        return Sources(files, [*splits, *inside])

    def read(self) -> Contents:
        """Read the lists; every file that they name must be there."""
        classes = folders_in(self.root / _IMAGES / "train")
        splits: dict[Split, list[Row]] = {
            split: list(_rows(self.root, split, classes)) for split in get_args(Split)
        }
        return Contents(classes, splits)


def _rows(root: Path, split: Split, classes: list[str]) -> Iterator[Row]:
    lists, files = root / _LISTS / split, _Files(root / _IMAGES)
    masks = {} if split == "train" else _masks(lists / "localization.txt", files)
    labels = read_rows(lists / "class_labels.txt", 2)
    for place, (name, text) in labels:
        label = number_in(place, text, range(len(classes)))
        files.check(place, name)
        folder = name.split("/")[-2] if name.count("/") else ""
        if classes[label] != folder:
            raise place.error(
                f"label {label} is that of {classes[label]}, the image is in {folder}"
            )
        own, ignore = masks.pop(name, ((), None))
        if split != "train" and not own:
            raise place.error(f"{name} has no mask in localization.txt")
        yield Row(name, f"{_IMAGES}/{name}", label, masks=own, ignore=ignore)
    if masks:
        raise InputError(
            f"{lists / 'class_labels.txt'} lacks {min(masks)}, which has masks; add it"
        )


class _Files:
    """What is in the folders, each listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, frozenset[str]] = {}

    def check(self, place: Place, name: str) -> str:
        """Return the path below the data root of a file that must be there."""
        folder, _, file = plain_path(place, name).rpartition("/")
        if folder not in self._names:
            found = names_in(self._root / folder) if (self._root / folder).is_dir() else []
            self._names[folder] = frozenset(found)
        if file not in self._names[folder]:
            raise place.error(f"{self._root / name} does not exist", "unpack the archives again")
        return f"{_IMAGES}/{name}"


def _masks(file: Path, files: _Files) -> dict[str, tuple[tuple[str, ...], str | None]]:
    """Masks and ignore region of each image; the region stands on an image's first line only."""
    found: dict[str, tuple[tuple[str, ...], str | None]] = {}
    for place, (name, mask, ignore) in read_rows(file, 3):
        before, region = found.get(name, ((), None))
        if ignore and region:
            raise place.error(f"{name} has a second region to ignore")
        region = files.check(place, ignore) if ignore else region
        found[name] = ((*before, files.check(place, mask)), region)
    return found
