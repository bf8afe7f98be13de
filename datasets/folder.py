"""Anyone's own images: ``train/<class>/*`` and ``test/<class>/*``, with boxes or masks beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from wsolbench.annotations import Place, corners, plain_path, read_coco, read_rows, read_voc, shown
from wsolbench.dataset import Split
from wsolbench.errors import InputError
from wsolbench.index import (
    Contents,
    IndexedDataset,
    Row,
    Sources,
    folders_in,
    names_in,
)
from wsolbench.registry import register_dataset
from wsolbench.types import Box

_HEADER = ("image", "x0", "y0", "x1", "y1")
_CSV, _COCO, _VOC, _MASKS = "boxes.csv", "boxes.json", "boxes", "masks"


@register_dataset("folder")
class Folder(IndexedDataset):
    """Classes are the folders of ``train``, sorted; ids are paths such as ``test/cat/1.jpg``.

    Boxes are 0-based as given: x0, y0, x1, y1 in CSV and VOC, x, y, x+w, y+h in COCO. What is
    brighter than black in a mask is object.
    """

    title = "Own images"
    layout = (
        "train/<class>/*, test/<class>/*, optional val/<class>/*, and boxes.csv, boxes.json "
        "(COCO), boxes/<split>/<class>/<name>.xml (VOC) or masks/<split>/<class>/<name>.png"
    )
    holdout_title = "the folder val"

    @property
    def task(self) -> Literal["box", "mask"]:  # type: ignore[override]  # files decide
        """``mask`` where there are no boxes."""
        return "box" if _box_file(self.root) is not None else "mask"

    def sources(self) -> Sources:
        """Lists of images and masks, and the files of boxes."""
        for split in ("train", "test"):
            if not (self.root / split).is_dir():
                raise InputError(
                    f"{self.root / split} does not exist; --data-root must be the folder that "
                    f"contains {self.layout}"
                )
        boxes = _box_file(self.root)
        if boxes is None and not (self.root / _MASKS).is_dir():
            raise InputError(f"{self.root} has no boxes and no masks; add {_CSV} or {_MASKS}/")
        files = [boxes] if boxes is not None and boxes.is_file() else []
        below = [self.root / split for split in get_args(Split)]
        listings = [place for top in (*below, self.root / _MASKS) for place in _folders(top)]
        contents = [] if boxes is None or boxes.is_file() else list(_folders(boxes))
        return Sources(files, listings, contents)

    def read(self) -> Contents:
        """Read everything; every box must be of an image that is there, every test image known."""
        classes = folders_in(self.root / "train")
        if not classes:
            raise InputError(f"{self.root / 'train'} has no folders; put each class in its own")
        images = {split: list(_images(self.root, split, classes)) for split in get_args(Split)}
        known = {name for found in images.values() for name, _ in found}
        boxes = _boxes(self.root, known)
        masks = _masks(self.root, known)
        rows: dict[Split, list[Row]] = {
            split: [
                Row(name, name, label, boxes.get(name, ()), masks.get(name, ()))
                for name, label in found
            ]
            for split, found in images.items()
        }
        _check_known(self.root, [*rows["test"], *rows["val"]], bool(boxes), bool(masks))
        return Contents(classes, rows)

    def without_holdout(self) -> str:
        """Where the hold-out may come from."""
        return (
            "add boxes of them or a folder val/<class>/ with boxes, or leave the hold-out away by "
            "--set holdout=0 --protocol wsoleval"
        )


def _box_file(root: Path) -> Path | None:
    found = [root / name for name in (_CSV, _COCO, _VOC) if (root / name).exists()]
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]} both hold boxes; keep one of them")
    return found[0] if found else None


def _folders(top: Path) -> Iterator[Path]:
    """A folder and those in it and in them, if it is there."""
    if top.is_dir():
        yield top
        for name in folders_in(top):
            yield from _folders(top / name)


def _images(root: Path, split: Split, classes: Sequence[str]) -> Iterator[tuple[str, int]]:
    found = folders_in(root / split) if (root / split).is_dir() else []
    for name in found:
        if name not in classes:
            raise InputError(f"{root / split / name} has no class in train; add or rename it")
        images = names_in(root / split / name)
        if not images:
            raise InputError(f"{root / split / name} has no images; add some or remove it")
        for image in images:
            yield f"{split}/{name}/{image}", classes.index(name)
    if not found and split == "test":
        raise InputError(f"{root / split} has no folders; put each class in its own")


# ---------------------------------------------------------------------------------------- boxes


def _boxes(root: Path, known: set[str]) -> dict[str, list[Box]]:
    file = _box_file(root)
    if file is None:
        return {}
    readers = {_CSV: _csv_boxes, _COCO: _coco_boxes, _VOC: _voc_boxes}
    boxes: dict[str, list[Box]] = {}
    for place, name, box in readers[file.name](file, known):
        if name not in known:
            raise place.error(f"there is no image {shown(name)}", "correct the name, or add it")
        if not (box[0] < box[2] and box[1] < box[3]):
            raise place.error(f"the box {box} has no area", "correct it")
        boxes.setdefault(name, []).append(box)
    return boxes


def _csv_boxes(file: Path, _: set[str]) -> Iterator[tuple[Place, str, Box]]:
    for place, (name, *values) in read_rows(file, 5, _HEADER):
        yield place, plain_path(place, name), corners(place, values)


def _coco_boxes(file: Path, _: set[str]) -> Iterator[tuple[Place, str, Box]]:
    for name, found in read_coco(file).items():
        for place, box in found:
            yield place, plain_path(place, name), box


def _voc_boxes(folder: Path, known: set[str]) -> Iterator[tuple[Place, str, Box]]:
    images = _by_stem(folder, known)
    for inside in _folders(folder):
        for name in names_in(inside, (".xml",)):
            file = inside / name
            stem = file.relative_to(folder).with_suffix("").as_posix()
            for thing in read_voc(file).objects:
                yield thing.place, images.get(stem, stem), thing.box


def _by_stem(folder: Path, known: set[str]) -> dict[str, str]:
    """Images by their paths without ending; if ``folder`` is there, each must be the only one."""
    images: dict[str, str] = {}
    for name in sorted(known):
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in images and folder.is_dir():
            raise InputError(f"{folder} cannot tell {images[stem]} from {name}; rename one of them")
        images[stem] = name
    return images


# ---------------------------------------------------------------------------------------- masks


def _masks(root: Path, known: set[str]) -> dict[str, list[str]]:
    """Masks of each image: ``<name>.png``, or several named ``<name>_1.png``, ``<name>_2.png``."""
    images = _by_stem(root / _MASKS, known)
    masks: dict[str, list[str]] = {}
    for folder in _folders(root / _MASKS):
        for name in names_in(folder, (".png",)):
            file = folder / name
            stem = file.relative_to(root / _MASKS).with_suffix("").as_posix()
            image = images.get(stem) or images.get(_before_number(stem))
            if image is None:
                raise InputError(f"{file} is a mask of no image; rename or remove it")
            masks.setdefault(image, []).append(file.relative_to(root).as_posix())
    return masks


def _before_number(stem: str) -> str:
    front, _, number = stem.rpartition("_")
    return front if number.isdigit() else stem


def _check_known(root: Path, rows: Sequence[Row], boxed: bool, masked: bool) -> None:
    """Figures need all or nothing of a kind."""
    lacking: Mapping[str, list[str]] = {
        "boxes": [row.image_id for row in rows if boxed and not row.boxes],
        "masks": [row.image_id for row in rows if masked and not row.masks],
    }
    for kind, names in lacking.items():
        if names:
            raise InputError(
                f"{root}: {len(names)} of {len(rows)} test and val images have no {kind}, such as "
                f"{names[0]}; add them or remove the images"
            )
