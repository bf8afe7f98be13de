"""ImageNet, ILSVRC 2012 CLS-LOC (Russakovsky et al. 2015), with ImageNetV2 as hold-out.

Boxes of training images are read only where they are held out; no method sees them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

from tqdm import tqdm

from wsolbench.annotations import (
    Place,
    clipped,
    corners,
    number_in,
    numbers,
    read_rows,
    read_text,
    read_voc,
    scaled,
    shown,
)
from wsolbench.dataset import Facts, Sample
from wsolbench.download import Archive
from wsolbench.errors import InputError
from wsolbench.index import (
    Contents,
    IndexedDataset,
    Row,
    Sources,
    first_of,
    folders_in,
    names_in,
    required,
)
from wsolbench.registry import register_dataset
from wsolbench.truth import image_size, image_sizes
from wsolbench.types import Box

#: SHA-256 of the ids of ImageNetV2 Threshold0.7: a class a line, in the order of its files
THRESHOLD07 = "64aeb620ff2ee48664b8dfff734cbc83ed4152618d21c1a852cfc9bbb8c66fb0"
V2_PER_CLASS = 10

_KAGGLE = "ILSVRC/Data/CLS-LOC"
_IMAGES = (_KAGGLE, "ILSVRC", "ILSVRC2012", "imagenet")
_BOXES = ("ILSVRC/Annotations/CLS-LOC/{}", "{images}/bbox_{}", "{images}/bbox/{}")
_CSV = ("LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv")
_V2_TEXTS = "metadata/ILSVRC/val"
_V2_LIST = "imagenetv2-a-44.json"
#: where the authors of ImageNetV2 moved it
_V2_HOST = "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main"
_CLOVA = "https://raw.githubusercontent.com/clovaai/wsolevaluation/master"
_WNID = re.compile(r"n\d{8}")
_OLD_STEMS = tuple(str(number) for number in range(V2_PER_CLASS))
_HASH = re.compile(r"[0-9a-f]{40}")
_NOT_V2 = "the hold-out is ImageNetV2 Threshold0.7, get imagenetv2-threshold0.7.tar.gz"


@register_dataset("ilsvrc")
class Ilsvrc(IndexedDataset):
    """1000 classes, 50,000 validation images as test, several boxes an image.

    Labels follow the sorted WordNet ids, never the devkit's numbers. Boxes are 0-based, hold both
    corners and are clipped to the image. Ids are those of Choe et al. 2020, wherever the files lie
    and whatever they are called: ``train/<wnid>/<file>``, ``val/<file>``,
    ``val2/<class>/<number>.jpeg``.
    """

    title = "ImageNet (ILSVRC 2012)"
    layout = (
        "ILSVRC/{train/<wnid>/*.JPEG, val/*.JPEG or val/<wnid>/*.JPEG, bbox_val/*.xml, optional "
        "bbox_train/<wnid>/*.xml} or Kaggle's ILSVRC/{Data,Annotations}/CLS-LOC, and as hold-out "
        "imagenetv2-threshold0.7*/{0..999}/ with ImageNetV2_boxes.txt"
    )
    holdout_title = "ImageNetV2 Threshold0.7"
    facts = Facts(
        classes=1000,
        train=1_281_167,
        test=50_000,
        holdout=10_000,
        test_boxes=80_477,
        past_edge=0,
        class_digest="385e02404994",
        tried=False,
    )
    archives: ClassVar[tuple[Archive, ...]] = (
        Archive(
            f"{_V2_HOST}/imagenetv2-threshold0.7.tar.gz",
            None,
            "imagenetv2-threshold0.7",
            into="imagenetv2-threshold0.7",
        ),
        Archive(
            f"https://raw.githubusercontent.com/modestyachts/ImageNetV2/master/data/datasets/{_V2_LIST}",
            None,
            _V2_LIST,
        ),
        Archive(f"{_CLOVA}/release/ImageNetV2_boxes.txt", None, "ImageNetV2_boxes.txt"),
        Archive(
            f"{_CLOVA}/{_V2_TEXTS}/image_sizes.txt",
            None,
            f"{_V2_TEXTS}/image_sizes.txt",
            into=_V2_TEXTS,
        ),
    )
    steps: ClassVar[tuple[str, ...]] = (
        "ImageNet itself needs an account; only you can accept its terms:",
        "1. register at https://image-net.org/signup.php and log in",
        "2. from https://image-net.org/challenges/LSVRC/2012/2012-downloads.php fetch",
        "   ILSVRC2012_img_train.tar (138 GB, MD5 1d675b47d978889d74fa0da5fadfb00e)",
        "   ILSVRC2012_img_val.tar (6.3 GB, MD5 29b22e2961454d5413ddabcf34fc5622)",
        "   ILSVRC2012_bbox_val_v3.tgz (2.2 MB, MD5 f4cd18b5ea29fe6bbea62ec9c20d80f0)",
        "   and, for hold-outs from training images,",
        "   ILSVRC2012_bbox_train_v2.tar.gz (20 MB, MD5 9271167e2176350e65cfe4e546f14b17)",
        "3. cd DATA_ROOT; mkdir -p ILSVRC/train ILSVRC/val ILSVRC/bbox_train ILSVRC/bbox_val",
        "4. tar -xf ILSVRC2012_img_val.tar -C ILSVRC/val",
        "5. tar -xf ILSVRC2012_img_train.tar -C ILSVRC/train, then there for each class:",
        "   for t in n*.tar; do mkdir ${t%.tar}; tar -xf $t -C ${t%.tar} && rm $t; done",
        "6. tar -xf ILSVRC2012_bbox_val_v3.tgz -C ILSVRC/bbox_val --strip-components=1",
        "7. tar -xf ILSVRC2012_bbox_train_v2.tar.gz -C ILSVRC/bbox_train",
        "Or accept the terms of Kaggle's imagenet-object-localization-challenge and unpack its",
        "archive in DATA_ROOT.",
    )

    def sources(self) -> Sources:
        """Lists of images, XML files or CSV, and the files of the hold-out."""
        tree = _find(self.root, self.layout)
        return tree.sources()

    def read(self) -> Contents:
        """Read names of training images, and all that is known of the others."""
        tree = _find(self.root, self.layout)
        classes = _classes(tree.train)
        label_of = {wnid: label for label, wnid in enumerate(classes)}
        return Contents(
            classes,
            {
                "train": _train_rows(self.root, tree, classes),
                "test": _test_rows(self.root, tree, label_of),
                "val": [] if tree.v2 is None else _v2_rows(self.root, tree.v2, len(classes)),
            },
        )

    def annotated(self, sample: Sample) -> Sample:
        """Read the boxes of a training image, which are relative to the size in their file.

        Some lie outside or end before they begin: they are clipped and put in order.
        """
        if sample.annotation is None:
            return sample
        voc, size = read_voc(sample.annotation), image_size(sample.path)
        if not voc.objects:
            raise Place(sample.annotation, 1).error("there is no object")
        boxes = [scaled(thing.box, voc.size or size, size) for thing in voc.objects]
        return replace(sample, boxes=tuple(clipped(box, size) for box in boxes), annotation=None)

    def without_holdout(self) -> str:
        """Where the hold-out comes from."""
        return (
            "add ImageNetV2 (`download ilsvrc`) or the boxes of ILSVRC2012_bbox_train_v2.tar.gz, "
            "or leave the hold-out away by --set holdout=0 --protocol wsoleval"
        )


# --------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class _V2:
    """Files of the hold-out; ``ids`` pairs new names with old ones."""

    folder: Path
    boxes: Path
    ids: Path | None
    sizes: Path | None


@dataclass(frozen=True)
class _Tree:
    """Where everything lies; ``val_boxes`` is a folder of XML files or Kaggle's CSV file."""

    train: Path
    val: Path
    val_boxes: Path
    train_boxes: Path | None
    v2: _V2 | None

    def sources(self) -> Sources:
        files = [self.val_boxes] if self.val_boxes.is_file() else []
        contents = [] if self.val_boxes.is_file() else [self.val_boxes]
        listings = [self.train, self.val]
        if self.train_boxes is not None:
            listings.append(self.train_boxes)
        if self.v2 is not None:
            files.extend(p for p in (self.v2.boxes, self.v2.ids, self.v2.sizes) if p is not None)
            listings.append(self.v2.folder)
        inside = [folder / name for folder in listings for name in folders_in(folder)]
        return Sources(files, [*listings, *inside], contents)


def _find(root: Path, layout: str) -> _Tree:
    names = [f"{name}/train" for name in _IMAGES]
    images = required(root, names, layout).parent
    val = required(images, ["val"], layout)
    own = str(images.relative_to(root))
    boxes = [form.format("{}", images=own) for form in _BOXES]
    in_images = [own + "/val"] if names_in(val, (".xml",)) else []
    tried = [*(name.format("val") for name in boxes), *in_images, *_CSV]
    return _Tree(
        images / "train",
        val,
        _unnested(required(root, tried[1:2] + tried, layout), "val"),
        _trained(first_of(root, [name.format("train") for name in boxes])),
        _find_v2(root, images),
    )


def _unnested(folder: Path, name: str) -> Path:
    """The archive of the validation boxes has a folder ``val`` in it."""
    return folder / name if (folder / name).is_dir() and folder.name != name else folder


def _trained(folder: Path | None) -> Path | None:
    return None if folder is None else _unnested(folder, "train")


def _find_v2(root: Path, images: Path) -> _V2 | None:
    named = sorted(p for p in root.glob("imagenetv2-*") if p.is_dir())
    found = [p for p in named if "threshold" in p.name]
    if named and not found:
        raise InputError(f"{named[0]} is another variant; {_NOT_V2}")
    if (images / "val2").is_dir():
        found.append(images / "val2")
    if not found:
        return None
    folder = _inner(found[0])
    texts, near = root / _V2_TEXTS, (found[0], folder, root)
    boxes = [*(p / "ImageNetV2_boxes.txt" for p in near), texts / "localization.txt"]
    lists = [*(p / _V2_LIST for p in near), texts / "mapping.txt"]
    sizes = [texts / "image_sizes.txt", folder / "image_sizes.txt", found[0] / "image_sizes.txt"]
    told = _present(boxes)
    if told is None:
        raise InputError(f"{folder} needs {boxes[2]} from {_CLOVA}/release/ImageNetV2_boxes.txt")
    return _V2(folder, told, _present(lists), _present(sizes))


def _present(paths: Sequence[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _inner(folder: Path) -> Path:
    """The archive has a folder in it, whose name was spelt in three ways."""
    names = folders_in(folder)
    return folder / names[0] if len(names) == 1 and names[0].startswith("imagenetv2") else folder


def _classes(train: Path) -> list[str]:
    classes = folders_in(train)
    for name in classes:
        if not _WNID.fullmatch(name):
            raise InputError(f"{train / name} is no WordNet id; classes are folders n01440764, ...")
    if not classes:
        raise InputError(f"{train} has no folders n01440764, ...; unpack the training images there")
    return classes


# ------------------------------------------------------------------------------- train and test


def _train_rows(root: Path, tree: _Tree, classes: Sequence[str]) -> Iterator[Row]:
    below = str(tree.train.relative_to(root))
    for label, wnid in enumerate(tqdm(classes, "listing train", disable=None)):
        names = names_in(tree.train / wnid)
        if not names:
            raise InputError(f"{tree.train / wnid} has no images; unpack its tar there")
        boxes = None if tree.train_boxes is None else tree.train_boxes / wnid
        known = set(names_in(boxes, (".xml",))) if boxes is not None and boxes.is_dir() else set()
        for name in names:
            xml = f"{name.rpartition('.')[0]}.xml"
            told = f"{boxes.relative_to(root)}/{xml}" if boxes and xml in known else None
            path = f"{below}/{wnid}/{name}"
            yield Row(f"train/{wnid}/{name}", path, label, annotation=told)


class _Told(NamedTuple):
    """What is said of a validation image: objects, and the size they are relative to."""

    objects: list[tuple[Place, str, Box]]
    size: tuple[int, int] | None


class _Image(NamedTuple):
    """A validation image; ``wnid`` is the folder it was sorted into, "" where none."""

    name: str
    wnid: str

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0]


def _test_rows(root: Path, tree: _Tree, label_of: Mapping[str, int]) -> Iterator[Row]:
    images = _val_images(tree.val)
    told = _told(tree, images)
    paths = [tree.val / image.wnid / image.name for image in images]
    sizes = image_sizes(paths, "sizes of val")
    for image, path, size in zip(images, paths, sizes, strict=True):
        objects, written = told(image.stem)
        label = _one_label(image, objects, label_of)
        boxes = tuple(_placed(place, box, written or size, size) for place, _, box in objects)
        yield Row(f"val/{image.name}", str(path.relative_to(root)), label, boxes)


def _val_images(val: Path) -> list[_Image]:
    images = [_Image(name, "") for name in names_in(val)]
    wnids = folders_in(val)
    if images and wnids:
        raise InputError(f"{val} has images and folders; leave them flat or sort all of them")
    for wnid in wnids:
        if not _WNID.fullmatch(wnid):
            raise InputError(f"{val / wnid} is no WordNet id; sort by ids such as n01440764")
        images.extend(_Image(name, wnid) for name in names_in(val / wnid))
    if not images:
        raise InputError(f"{val} has no images; unpack ILSVRC2012_img_val.tar there")
    return sorted(images)


def _told(tree: _Tree, images: Sequence[_Image]) -> _Reader:
    if tree.val_boxes.is_file():
        reader: _Reader = _CsvReader(tree.val_boxes)
    else:
        reader = _XmlReader(tree.val_boxes)
    lacking = [image for image in images if image.stem not in reader.known]
    if lacking:
        raise InputError(
            f"{tree.val_boxes} lacks boxes of {len(lacking)} of {len(images)} images, such as "
            f"{lacking[0].stem}; unpack ILSVRC2012_bbox_val_v3.tgz again"
        )
    surplus = reader.known - {image.stem for image in images}
    if surplus:
        raise InputError(
            f"{tree.val} lacks {len(surplus)} images that have boxes, such as {min(surplus)}; "
            "unpack ILSVRC2012_img_val.tar again"
        )
    return reader


class _XmlReader:
    """One XML file an image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.known = frozenset(name[:-4] for name in names_in(folder, (".xml",)))

    def __call__(self, stem: str) -> _Told:
        # by the file's name: some say `%s` where theirs should stand
        file = self._folder / f"{stem}.xml"
        voc = read_voc(file)
        if not voc.objects:
            raise Place(file, 1).error("there is no object")
        return _Told([(thing.place, thing.name, thing.box) for thing in voc.objects], voc.size)


class _CsvReader:
    """Kaggle's file: ``wnid xmin ymin xmax ymax`` again and again."""

    def __init__(self, file: Path) -> None:
        self._told: dict[str, list[tuple[Place, str, Box]]] = {}
        for place, (stem, text) in read_rows(file, 2, ("ImageId", "PredictionString")):
            words = text.split()
            if len(words) % 5 or not words:
                raise place.error(f"expected wnid and four numbers, once or more: {shown(text)}")
            if stem in self._told:
                raise place.error(f"{shown(stem)} stands there already", "remove one of them")
            groups = [words[i : i + 5] for i in range(0, len(words), 5)]
            self._told[stem] = [(place, w, _any_box(place, rest)) for w, *rest in groups]
        self.known = frozenset(self._told)

    def __call__(self, stem: str) -> _Told:
        return _Told(self._told[stem], None)


_Reader = _XmlReader | _CsvReader


def _any_box(place: Place, texts: Sequence[str]) -> Box:
    x0, y0, x1, y1 = numbers(place, texts, 4)
    return x0, y0, x1, y1


def _one_label(
    image: _Image, objects: Sequence[tuple[Place, str, Box]], label_of: Mapping[str, int]
) -> int:
    for place, wnid, _ in objects:
        if wnid not in label_of:
            raise place.error(f"class {shown(wnid)} has no folder in train", "unpack it there")
        if wnid != (image.wnid or objects[0][1]):
            where = f"in folder {image.wnid}" if image.wnid else f"of class {objects[0][1]} too"
            raise place.error(
                f"{image.name} is of class {wnid} and {where}",
                "sort val by the classes of the boxes, not by the devkit's numbers",
            )
    return label_of[objects[0][1]]


def _placed(place: Place, box: Box, written: tuple[int, int], size: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = scaled(box, written, size)
    if not (x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0 and x0 < size[0] and y0 < size[1]):
        raise place.error(f"the box {box} has nothing in an image of {size[0]}x{size[1]}")
    return clipped((x0, y0, x1, y1), size)


# ------------------------------------------------------------------------------------- hold-out

#: name of an image as `release/ImageNetV2_boxes.txt` has it, such as 0/0.jpeg
_Key = tuple[int, int]


def _v2_rows(root: Path, v2: _V2, classes: int) -> list[Row]:
    files = _v2_files(v2, classes)
    boxes, stated = _v2_boxes(v2, files), _v2_sizes(v2)
    sizes = image_sizes(list(files.values()), "sizes of the hold-out")
    rows = []
    for (key, path), size in zip(files.items(), sizes, strict=True):
        if stated.get(key, size) != size:
            raise InputError(f"{path} is {size}, {v2.sizes} says {stated[key]}; {_NOT_V2}")
        for place, box in boxes[key]:
            if box[2] > size[0] or box[3] > size[1]:
                raise place.error(f"the box reaches past {path} of {size[0]}x{size[1]}", _NOT_V2)
        found = tuple(clipped(box, size) for _, box in boxes[key])
        name = f"val2/{key[0]}/{key[1]}.jpeg"
        rows.append(Row(name, str(path.relative_to(root)), key[0], found))
    return rows


def _v2_files(v2: _V2, classes: int) -> dict[_Key, Path]:
    """Files by their old names, sorted as numbers: folder 10 is class 10, not the third."""
    folders = folders_in(v2.folder)
    if any(_WNID.fullmatch(name) for name in folders):
        raise InputError(f"{v2.folder} has WordNet ids, as a withdrawn release had; {_NOT_V2}")
    wanted = {str(label) for label in range(classes)}
    if set(folders) != wanted:
        odd = min(wanted.symmetric_difference(folders))
        raise InputError(f"{v2.folder} must have folders 0 to {classes - 1}, see {odd}; {_NOT_V2}")
    pairs = _v2_names(v2, classes)
    return {key: v2.folder / name for key, name in sorted(pairs.items())}


def _v2_names(v2: _V2, classes: int) -> dict[_Key, str]:
    names = {label: names_in(v2.folder / str(label)) for label in range(classes)}
    for label, found in names.items():
        if len(found) != V2_PER_CLASS:
            raise InputError(f"{v2.folder / str(label)} has {len(found)} images, not 10; {_NOT_V2}")
    listed = [(label, name) for label, found in names.items() for name in found]
    renamed = _HASH.fullmatch(listed[0][1].partition(".")[0])
    if renamed and v2.ids is None:
        raise InputError(
            f"{v2.folder} has the new names, which need the official list of ids: "
            f"`download ilsvrc` fetches {_V2_LIST}"
        )
    if not renamed and v2.sizes is None:
        raise InputError(
            f"{v2.folder} has the old names, which every variant has; `download ilsvrc` fetches "
            f" {_V2_TEXTS}/image_sizes.txt, which tells them apart"
        )
    old = _pairing(v2.ids) if renamed and v2.ids is not None else None
    return {_key(v2.folder, label, name, old): f"{label}/{name}" for label, name in listed}


def _key(folder: Path, label: int, name: str, old: Mapping[str, _Key] | None) -> _Key:
    stem = name.partition(".")[0]
    if old is None:
        if stem not in _OLD_STEMS:
            raise InputError(f"{folder / str(label) / name} is none of 0.jpeg to 9.jpeg; {_NOT_V2}")
        return label, int(stem)
    if old.get(stem, (-1, 0))[0] != label:
        raise InputError(f"{folder / str(label) / name} is not in Threshold0.7; {_NOT_V2}")
    return old[stem]


def _pairing(file: Path) -> dict[str, _Key]:
    """Old names by id; both forms of the list are held to the same digest."""
    of_class = _json_ids(file) if file.suffix == ".json" else _mapping_ids(file)
    text = "\n".join(" ".join(ids) for ids in of_class)
    if hashlib.sha256(text.encode()).hexdigest() != THRESHOLD07:
        raise InputError(f"{file} is not the list of Threshold0.7's ids; get {_V2_LIST}")
    return {name: (c, k) for c, ids in enumerate(of_class) for k, name in enumerate(ids)}


def _json_ids(file: Path) -> list[list[str]]:
    try:
        pairs = json.loads(read_text(file))["image_filenames"]
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name, wnid in pairs:
            found[str(wnid)].append(str(name))
    except json.JSONDecodeError as error:
        raise Place(file, error.lineno).error("no JSON", f"get {_V2_LIST} again") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Place(file, 1).error("no list of ids", f"get {_V2_LIST} again") from error
    return [found[wnid] for wnid in sorted(found)]


def _mapping_ids(file: Path) -> list[list[str]]:
    """Lines such as ``0/0.jpeg, 0/a310...00ab.jpeg``."""
    found: defaultdict[int, dict[int, str]] = defaultdict(dict)
    for place, (old, new) in read_rows(file, 2):
        label, number = _old_key(place, old)
        found[label][number] = new.rpartition("/")[2].partition(".")[0]
    return [[ids[k] for k in sorted(ids)] for _, ids in sorted(found.items())]


def _old_key(place: Place, text: str) -> _Key:
    label, _, name = text.removeprefix("val2/").partition("/")
    number = number_in(place, name.removesuffix(".jpeg"), range(V2_PER_CLASS))
    return number_in(place, label, range(1000)), number


def _text_key(place: Place, text: str, old: Mapping[str, _Key]) -> _Key:
    stem = text.rpartition("/")[2].partition(".")[0]
    return old[stem] if stem in old else _old_key(place, text)


def _v2_boxes(v2: _V2, files: Mapping[_Key, Path]) -> dict[_Key, list[tuple[Place, Box]]]:
    header = ("image_id", "x0", "y0", "x1", "y1") if v2.boxes.name.startswith("Image") else ()
    old = _renamed(v2)
    boxes: defaultdict[_Key, list[tuple[Place, Box]]] = defaultdict(list)
    for place, (name, *values) in read_rows(v2.boxes, 5, header):
        boxes[_text_key(place, name, old)].append((place, corners(place, values)))
    for key in files:
        if key not in boxes:
            raise InputError(f"{v2.boxes} lacks {key[0]}/{key[1]}.jpeg; restore it from {_CLOVA}")
    return boxes


def _v2_sizes(v2: _V2) -> dict[_Key, tuple[int, int]]:
    if v2.sizes is None:
        return {}
    old, side = _renamed(v2), range(1, 100_000)
    return {
        _text_key(place, name, old): (number_in(place, w, side), number_in(place, h, side))
        for place, (name, w, h) in read_rows(v2.sizes, 3)
    }


def _renamed(v2: _V2) -> Mapping[str, _Key]:
    """Old names by id, where lists of later dates may have the ids."""
    return {} if v2.ids is None else _pairing(v2.ids)
