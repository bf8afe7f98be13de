"""CUB-200-2011 (Wah et al. 2011) in its official layout; so are subsets of its classes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, NoReturn

from wsolbench.annotations import corners, numbered_lines, plain_path, read_lines, read_rows, shown
from wsolbench.dataset import Dataset, Facts, OfficialSplit, Sample
from wsolbench.download import Archive
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
_V2_LIST = "metadata/CUB/val/localization.txt"
_V2_FOLDERS = ("CUBV2", "CUB_200_2011/images")
_MASKS = ("segmentations", "CUB_200_2011/segmentations")
#: grey is the share of annotators who saw the bird there: more than half of them
_MAJORITY = (128, 255)
_OVERLAP = "cub_imagenet_overlap.tsv"
_WHOLE = 5_794  # test images; a part of the classes lacks some of the list
_NAMED = 3  # missing images that an error names before it only counts
_RESTORE = "restore it from CUB_200_2011.tgz"


@register_dataset("cub")
class Cub(Dataset):
    """Birds of 200 species, one box an image; image ids are the paths in ``images.txt``.

    Labels follow the order of ``classes.txt``. Boxes are x, y, x+w, y+h as annotated: some leave
    the image by a few pixels, and what to do about it belongs to the protocol.

    Beside ``CUB_200_2011`` may lie the masks of ``segmentations.tgz``, the images of CUBv2 (Choe et
    al. 2020) as hold-out, with the list of their boxes, and a list of test images that are in
    ImageNet's training set, too.
    """

    title = "CUB-200-2011"
    layout = (
        "CUB_200_2011/{images/, images.txt, image_class_labels.txt, bounding_boxes.txt, "
        "train_test_split.txt, classes.txt}"
    )
    holdout_title = "CUBv2"
    facts = Facts(
        classes=200, train=5_994, test=5_794, holdout=1_000, test_boxes=5_794, past_edge=30
    )
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            "CUB_200_2011",
        ),
        Archive(
            "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",
            "sha256:dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
            "segmentations",
        ),
        Archive(
            f"https://raw.githubusercontent.com/clovaai/wsolevaluation/master/{_V2_LIST}",
            None,
            _V2_LIST,
            into="metadata/CUB/val",
        ),
    )
    steps: ClassVar[tuple[str, ...]] = (
        "The hold-out CUBv2 lies on Google Drive, without a checksum:",
        "1. https://drive.google.com/open?id=1U6cwKHS65wayT9FFvoLIA8cn1k0Ot2M1 (CUBV2.tar)",
        "2. unpack it so that DATA_ROOT/CUBV2/001.Black_footed_Albatross/ is there",
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
        self._class_names, splits = _read(folder)
        masks = next((root / name for name in _MASKS if (root / name).is_dir()), None)
        self._splits = splits if masks is None else _with_masks(splits, masks)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names as in ``classes.txt``, such as ``001.Black_footed_Albatross``."""
        return self._class_names

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        """Samples of a split in the order of ``images.txt``, with their boxes."""
        return self._splits[split]

    def official_holdout(self) -> Sequence[Sample]:
        """Images of CUBv2 of the classes that are there; none where its files are not."""
        return self._v2

    @cached_property
    def _v2(self) -> list[Sample]:
        return _read_v2(self.root, self._class_names)

    def in_imagenet(self) -> frozenset[str]:
        """Test images that the user's list says are in ImageNet's training set."""
        file = self.root / _OVERLAP
        return _read_overlap(file, self._splits["test"]) if file.exists() else frozenset()


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
            sized=True,
        )
        found[_split(splits, key)].append(sample)
    return tuple(name for _, name in classes.rows.values()), found


def _read_table(path: Path) -> _Table:
    rows: dict[int, tuple[int, str]] = {}
    for number, line in enumerate(read_lines(path, _RESTORE), start=1):
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


# ------------------------------------------------------------------- what may lie beside it


def _with_masks(
    splits: dict[OfficialSplit, list[Sample]], folder: Path
) -> dict[OfficialSplit, list[Sample]]:
    masked = {
        split: [_with_mask(sample, folder) for sample in samples]
        for split, samples in splits.items()
    }
    masks = [s.instance_masks[0] for samples in masked.values() for s in samples]
    on_disk = {parent: _files(parent) for parent in {mask.parent for mask in masks}}
    missing = [mask for mask in masks if mask.name not in on_disk[mask.parent]]
    if missing:
        raise InputError(
            f"{missing[0]} and {len(missing) - 1} more masks of {len(masks)} do not exist; "
            "unpack segmentations.tgz again or remove its folder"
        )
    return masked


def _with_mask(sample: Sample, folder: Path) -> Sample:
    mask = (folder / sample.image_id).with_suffix(".png")
    return replace(sample, instance_masks=(mask,), object_values=_MAJORITY)


def _read_v2(root: Path, classes: Sequence[str]) -> list[Sample]:
    """CUBv2 by the metadata of Choe et al.: the boxes of their release are not what they say."""
    file = root / _V2_LIST
    if not file.exists():
        if (root / _V2_FOLDERS[0]).is_dir():
            raise InputError(
                f"{root / _V2_FOLDERS[0]} needs {file} (`download cub`); CUBV2_boxes.txt does not "
                "do, its columns are not what its first line says"
            )
        return []
    label_of = {name: label for label, name in enumerate(classes)}
    rows = [
        (place, plain_path(place, name), corners(place, box))
        for place, (name, *box) in read_rows(file, 5)
    ]
    wanted = [row for row in rows if row[1].partition("/")[0] in label_of]
    folder = _v2_folder(root, [name for _, name, _ in wanted])
    if folder is None:
        return []
    for place, name, _ in wanted:
        if name not in folder[1]:
            raise place.error(f"{folder[0] / name} does not exist", "unpack CUBV2.tar again")
    return [
        Sample(name, folder[0] / name, label_of[name.partition("/")[0]], (box,))
        for _, name, box in wanted
    ]


def _v2_folder(root: Path, names: Sequence[str]) -> tuple[Path, frozenset[str]] | None:
    """The folder that has any of the images, and which files its folders have."""
    for folder in (root / name for name in _V2_FOLDERS):
        parents = {name.partition("/")[0] for name in names}
        files = frozenset(f"{p}/{name}" for p in parents for name in _files(folder / p))
        if not files.isdisjoint(names):
            return folder, files
    return None


def _read_overlap(file: Path, test: Sequence[Sample]) -> frozenset[str]:
    """A list with a column ``cub_path`` between tabs, each of them a test image."""
    rows = [(place, line.split("\t")) for place, line in numbered_lines(file)]
    first, header = rows[0]
    if "cub_path" not in header:
        raise first.error("expected columns between tabs, one of them cub_path", "add this line")
    column, known = header.index("cub_path"), {sample.image_id for sample in test}
    found = set()
    for place, fields in rows[1:]:
        name = fields[column] if column < len(fields) else ""
        if name not in known and len(known) == _WHOLE:
            raise place.error(f"{shown(name)} is no test image", "correct the list")
        found.add(name)
    return frozenset(found & known)
