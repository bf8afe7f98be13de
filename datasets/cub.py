"""CUB-200-2011 (Wah et al. 2011) in its official layout; so are subsets of its classes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from wsolbench.dataset import Dataset, OfficialSplit, Sample
from wsolbench.errors import InputError
from wsolbench.registry import register_dataset
from wsolbench.types import Box

_TEXTS = (
    "images.txt",
    "image_class_labels.txt",
    "bounding_boxes.txt",
    "train_test_split.txt",
    "classes.txt",
)
_NAMED = 3  # missing images that an error names before it only counts
_RESTORE = "restore it from CUB_200_2011.tgz"


@register_dataset("cub")
class Cub(Dataset):
    """Birds of 200 species, one box an image; image ids are the paths in ``images.txt``.

    Labels follow the order of ``classes.txt``. Boxes are x, y, x+w, y+h as annotated: some leave
    the image by a few pixels, and what to do about it belongs to the protocol.
    """

    title = "CUB-200-2011"
    layout = (
        "CUB_200_2011/{images/, images.txt, image_class_labels.txt, bounding_boxes.txt, "
        "train_test_split.txt, classes.txt}"
    )

    def __init__(self, root: Path, holdout: int = 0) -> None:
        super().__init__(root, holdout)
        folder = root / "CUB_200_2011"
        for path in (folder, folder / "images", *(folder / text for text in _TEXTS)):
            if not path.exists():
                raise InputError(
                    f"{path} does not exist; "
                    f"--data-root must be the folder that contains {self.layout}"
                )
        self._class_names, self._splits = _read(folder)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names as in ``classes.txt``, such as ``001.Black_footed_Albatross``."""
        return self._class_names

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        """Samples of a split in the order of ``images.txt``, with their boxes."""
        return self._splits[split]


@dataclass(frozen=True)
class _Table:
    """One text file: id to the line's number and what follows the id there."""

    path: Path
    rows: dict[int, tuple[int, str]]

    def fail(self, key: int, problem: str) -> NoReturn:
        raise InputError(f"{self.path}:{self.rows[key][0]}: {problem}")


def _read(folder: Path) -> tuple[tuple[str, ...], dict[OfficialSplit, list[Sample]]]:
    images, labels, boxes, splits, classes = (_read_table(folder / name) for name in _TEXTS)
    for table in (labels, boxes, splits):
        _check_same_ids(images, table)
    _check_paths(images)
    _check_files(images, folder / "images")
    label_of = {number: index for index, number in enumerate(classes.rows)}
    found: dict[OfficialSplit, list[Sample]] = {"train": [], "test": []}
    for key, (_, name) in images.rows.items():
        sample = Sample(
            image_id=name,
            path=folder / "images" / name,
            label=_label(labels, key, label_of, classes.path),
            boxes=(_box(boxes, key),),
        )
        found[_split(splits, key)].append(sample)
    return tuple(name for _, name in classes.rows.values()), found


def _read_table(path: Path) -> _Table:
    rows: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        first, _, rest = line.strip().partition(" ")
        if not (first.isascii() and first.isdigit() and rest.strip()):
            raise InputError(f"{path}:{number}: expected '<id> <value>', got '{line}'; {_RESTORE}")
        if int(first) in rows:
            before = rows[int(first)][0]
            raise InputError(
                f"{path}:{number}: id {first} stands on line {before} already; remove one of them"
            )
        rows[int(first)] = (number, rest.strip())
    if not rows:
        raise InputError(f"{path}:1: the file is empty; {_RESTORE}")
    return _Table(path, rows)


def _read_lines(path: Path) -> list[str]:
    try:
        # not splitlines(), which also splits at characters that may stand in a name
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text in UTF-8; {_RESTORE}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return lines[:-1] if lines[-1] == "" else lines


def _check_same_ids(images: _Table, other: _Table) -> None:
    """Neither file may lack what the other has: either would quietly make a smaller dataset."""
    for key in images.rows:
        if key not in other.rows:
            images.fail(key, f"image {key} has no line in {other.path.name}; add it there")
    for key in other.rows:
        if key not in images.rows:
            other.fail(key, f"image {key} has no line in {images.path.name}; add it there")


def _check_paths(images: _Table) -> None:
    first: dict[str, int] = {}
    for key, (line, name) in images.rows.items():
        path = PurePosixPath(name)
        # an id names files of ours too, which must not land outside their folder
        if path.is_absolute() or ".." in path.parts or str(path) != name:
            images.fail(key, f"'{name}' is no plain path below images/; {_RESTORE}")
        if name in first:
            images.fail(key, f"'{name}' stands on line {first[name]} already; remove one of them")
        first[name] = line


def _check_files(images: _Table, folder: Path) -> None:
    parents = {str(PurePosixPath(name).parent) for _, name in images.rows.values()}
    on_disk = {parent: _files(folder / parent) for parent in parents}
    missing = [
        (key, name)
        for key, (_, name) in images.rows.items()
        if PurePosixPath(name).name not in on_disk[str(PurePosixPath(name).parent)]
    ]
    if missing:
        names = ", ".join(name for _, name in missing[:_NAMED])
        more = ", ..." if len(missing) > _NAMED else ""
        images.fail(
            missing[0][0],
            f"{len(missing)} of {len(images.rows)} images are not in {folder}: {names}{more}; "
            "unpack CUB_200_2011.tgz again",
        )


def _files(folder: Path) -> frozenset[str]:
    # one listing a folder: the type comes with it, so thousands of images cost no stat each
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def _label(labels: _Table, key: int, label_of: dict[int, int], classes: Path) -> int:
    value = labels.rows[key][1]
    if not (value.isascii() and value.isdigit()):
        labels.fail(key, f"expected '<id> <class id>', got '{key} {value}'; {_RESTORE}")
    if int(value) not in label_of:
        labels.fail(key, f"class {value} is not in {classes.name}; add it there")
    return label_of[int(value)]


def _box(boxes: _Table, key: int) -> Box:
    text = boxes.rows[key][1]
    values = _floats(text)
    if len(values) != 4:
        boxes.fail(key, f"expected '<id> <x> <y> <width> <height>', got '{key} {text}'; {_RESTORE}")
    x, y, width, height = values
    if width <= 0 or height <= 0:
        boxes.fail(key, f"box of image {key} is {width} x {height} pixels; {_RESTORE}")
    return (x, y, x + width, y + height)


def _floats(text: str) -> list[float]:
    """Return the numbers of a line, or nothing where one of them is none (or infinite)."""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        return []
    return values if all(math.isfinite(value) for value in values) else []


def _split(splits: _Table, key: int) -> OfficialSplit:
    value = splits.rows[key][1]
    if value not in ("0", "1"):
        splits.fail(key, f"expected 1 for train or 0 for test, got '{value}'; {_RESTORE}")
    return "train" if value == "1" else "test"
