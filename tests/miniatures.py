"""Tiny versions of each dataset in its official layout: 3 classes of noise with a rectangle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from trees import COLOURS

WNIDS = ("n01440764", "n01443537", "n15075141")
WIDTH, HEIGHT = 48, 40
TRAIN, TEST = 4, 2
V2 = 10

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]


@dataclass
class Pen:
    """Draws images one after the other."""

    rng: np.random.Generator
    size: tuple[int, int] = (WIDTH, HEIGHT)

    def draw(self, file: Path, label: int) -> Box:
        """Write an image and return the corners x0, y0, x1, y1 of its rectangle, both within."""
        width, height = self.size
        w, h = int(self.rng.integers(12, width // 2)), int(self.rng.integers(12, height // 2))
        x, y = int(self.rng.integers(1, width - w - 1)), int(self.rng.integers(1, height - h - 1))
        pixels = self.rng.integers(90, 166, (height, width, 3), dtype=np.uint8)
        pixels[y : y + h, x : x + w] = COLOURS[label]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        return x, y, x + w - 1, y + h - 1

    def mask(self, file: Path, box: Box, inside: int = 255, outside: int = 0) -> Pixels:
        """Write a mask of a rectangle."""
        x0, y0, x1, y1 = box
        pixels = np.full((self.size[1], self.size[0]), outside, np.uint8)
        pixels[y0 : y1 + 1, x0 : x1 + 1] = inside
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        return pixels


def pen(size: tuple[int, int] = (WIDTH, HEIGHT)) -> Pen:
    return Pen(np.random.default_rng(0), size)


def write(file: Path, lines: list[str], end: str = "\n") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + end, "utf-8")
    return file


def voc(
    file: Path, boxes: list[Box], name: str, size: tuple[int, int] = (WIDTH, HEIGHT), said: str = ""
) -> Path:
    """Write VOC XML, a tag a line."""
    lines = ["<annotation>", f"<filename>{said or file.stem}</filename>", "<size>"]
    lines += [f"<width>{size[0]}</width>", f"<height>{size[1]}</height>", "</size>"]
    for box in boxes:
        lines += ["<object>", f"<name>{name}</name>", "<bndbox>"]
        tags = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        lines += [f"<{tag}>{value}</{tag}>" for tag, value in tags]
        lines += ["</bndbox>", "</object>"]
    return write(file, [*lines, "</annotation>"])


# -------------------------------------------------------------------------------------- ilsvrc


def make_ilsvrc(root: Path, v2: bool = True) -> Path:
    """Train folders, flat val with XML of two boxes, train boxes, and the hold-out by old names."""
    hand, folder, number = pen(), root / "ILSVRC", 0
    for label, wnid in enumerate(WNIDS):
        for i in range(TRAIN):
            stem = f"{wnid}_{i * 37 + 2}"
            box = hand.draw(folder / "train" / wnid / f"{stem}.JPEG", label)
            double = tuple(2 * value for value in box)
            # the size that was shown to annotators, twice the file's
            voc(folder / "bbox_train" / wnid / f"{stem}.xml", [double], wnid, (96, 80), "%s")  # type: ignore[list-item]
    for i in range(TEST * len(WNIDS)):
        number, label = number + 1, (2 - i) % 3
        stem = f"ILSVRC2012_val_{number:08d}"
        box = hand.draw(folder / "val" / f"{stem}.JPEG", label)
        voc(folder / "bbox_val" / f"{stem}.xml", [box, (0, 0, 9, 9)], WNIDS[label])
    if v2:
        make_v2(root)
    return root


def v2_id(label: int, number: int) -> str:
    # sorted otherwise than the numbers
    return f"{(label * V2 + number) * 7919 % 1000:040x}"


def make_v2(root: Path, renamed: bool = False) -> Path:
    """ImageNetV2 with 10 images a class, its boxes, sizes and list of ids."""
    hand, folder = pen(), root / "imagenetv2-threshold0.7-format-val"
    boxes, sizes, ids = ["image_id,x0,y0,x1,y1"], [], []
    for label, wnid in enumerate(WNIDS):
        for number in range(V2):
            name = v2_id(label, number) if renamed else str(number)
            x0, y0, x1, y1 = hand.draw(folder / str(label) / f"{name}.jpeg", label)
            boxes.append(f"{label}/{number}.jpeg,{x0},{y0},{x1},{y1}")
            if number == 3:
                boxes.append(f"{label}/{number}.jpeg,5,5,{WIDTH},{HEIGHT}")
            sizes.append(f"val2/{label}/{number}.jpeg,{WIDTH},{HEIGHT}")
            ids.append([v2_id(label, number), wnid])
    write(root / "ImageNetV2_boxes.txt", boxes)
    write(root / "metadata/ILSVRC/val/image_sizes.txt", sizes, end="")
    if renamed:
        write(root / "imagenetv2-a-44.json", [json.dumps({"image_filenames": ids}, indent=0)])
    return folder


# ---------------------------------------------------------------------------------- the others


def make_openimages(root: Path) -> Path:
    hand = pen()
    for split, count in (("train", TRAIN), ("val", 1), ("test", TEST)):
        labels, masks = [], []
        for label, mid in enumerate(("01226z", "0bt_c3", "0k4j")):
            for i in range(count):
                stem = f"{split}/{mid}/{label * 16 + i:016x}"
                x0, y0, x1, y1 = hand.draw(root / f"OpenImages/{stem}.jpg", label)
                labels.append(f"{stem}.jpg,{label}")
                if split == "train":
                    continue
                ignore = f"{stem}_ignore.png"
                for k, box in enumerate([(x0, y0, x1, y0 + 5), (x0, y0 + 6, x1, y1)]):
                    name = f"{stem}_m{mid}_{k:08x}.png"
                    hand.mask(root / "OpenImages" / name, box)
                    masks.append(f"{stem}.jpg,{name},{'' if k else ignore}")
                hand.mask(root / "OpenImages" / ignore, (0, 0, 4, 4))
        folder = root / "metadata/OpenImages" / split
        write(folder / "class_labels.txt", labels, end="")
        write(folder / "localization.txt", masks, end="")
    return root


def make_tiny_imagenet(root: Path) -> Path:
    hand, folder = pen((64, 64)), root / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        lines = []
        for i in range(TRAIN):
            name = f"{wnid}_{i}.JPEG"
            box = hand.draw(folder / "train" / wnid / "images" / name, label)
            lines.append("\t".join([name, *map(str, box)]))
        write(folder / "train" / wnid / f"{wnid}_boxes.txt", lines)
    lines = []
    for i in range(TEST * 3):
        box = hand.draw(folder / f"val/images/val_{i}.JPEG", i % 3)
        box = (box[0], 63, box[2], 63) if i == 0 else box
        lines.append("\t".join([f"val_{i}.JPEG", WNIDS[i % 3], *map(str, box)]))
    write(folder / "val/val_annotations.txt", lines)
    write(folder / "wnids.txt", [WNIDS[2], WNIDS[0], WNIDS[1]])
    return root


def make_stanford_dogs(root: Path) -> Path:
    hand, folder = pen(), root / "stanford_dogs"
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for label, breed in enumerate(("n02085620-Chihuahua", "n02085782-Spaniel", "n02116738-Hound")):
        for i in range(TRAIN + TEST):
            stem = f"{breed}/{breed[:9]}_{i}"
            box = hand.draw(folder / "Images" / f"{stem}.jpg", label)
            boxes = [box, (0, 0, 7, 7)] if i == 0 else [box]
            voc(folder / "Annotation" / f"{stem}.xml", boxes, breed[10:])
            (folder / "Annotation" / f"{stem}.xml").rename(folder / "Annotation" / stem)
            lists["train" if i >= TEST else "test"].append(f"{stem}.jpg")
    for split, names in lists.items():
        cells = np.array(names, dtype=object)[:, None]
        savemat(folder / f"{split}_list.mat", {"file_list": cells, "labels": [1] * len(names)})
    return root


def make_stanford_cars(root: Path) -> Path:
    hand, folder = pen(), root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    # as the official ones name them, with blanks and a slash
    names = np.array(["AM General Hummer", "Ram C/V", "smart fortwo"], dtype=object)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, count in (("train", TRAIN), ("test", TEST)):
        rows = []
        for i in range(3 * count):
            name = f"{i + 1:05d}.jpg"
            x0, y0, x1, y1 = hand.draw(folder / f"cars_{split}" / name, i % 3)
            # counted from 1, in the order that the documents list
            rows.append((x0 + 1, x1 + 1, y0 + 1, y1 + 1, i % 3 + 1, name))
        fields = ["bbox_x1", "bbox_x2", "bbox_y1", "bbox_y2", "class", "fname"]
        structs = np.array(rows, dtype=[(field, object) for field in fields])
        savemat(folder / files[split], {"annotations": structs})
    return root


def make_fgvc_aircraft(root: Path) -> Path:
    hand, folder = pen(), root / "fgvc-aircraft-2013b/data"
    variants = ("707-320", "Boeing 717", "F/A-18 B")
    boxes, number = [], 0
    for split, count in (("trainval", TRAIN), ("test", TEST)):
        lines = []
        for label, variant in enumerate(variants):
            for _ in range(count):
                number += 1
                name = f"{number:07d}"
                box = hand.draw(folder / "images" / f"{name}.jpg", label)
                boxes.append(" ".join([name, *map(str, box)]))
                lines.append(f"{name} {variant}")
        write(folder / f"images_variant_{split}.txt", lines)
    write(folder / "images_box.txt", boxes)
    write(folder / "variants.txt", list(variants))
    return root


def make_oxford_pet(root: Path) -> Path:
    hand, folder = pen(), root / "oxford-iiit-pet"
    lines: dict[str, list[str]] = {"trainval": ["#Image CLASS-ID SPECIES BREED ID"], "test": []}
    for label, breed in enumerate(("Abyssinian", "american_bulldog", "Bengal")):
        for i in range(TRAIN + TEST):
            name = f"{breed}_{i}"
            x0, y0, x1, y1 = hand.draw(folder / "images" / f"{name}.jpg", label)
            file = folder / "annotations/trimaps" / f"{name}.png"
            pixels = hand.mask(file, (x0, y0, x1, y1), 3, 2)
            pixels[y0 + 2 : y1 - 1, x0 + 2 : x1 - 1] = 1
            Image.fromarray(pixels).save(file)
            lines["trainval" if i < TRAIN else "test"].append(f"{name} {label + 1} 1 1")
            voc(folder / "annotations/xmls" / f"{name}.xml", [(x0, y0, x0 + 3, y0 + 3)], "cat")
    for split, content in lines.items():
        write(folder / "annotations" / f"{split}.txt", content)
    # files that are in no split
    (folder / "annotations/trimaps/._Bengal_0.png").write_bytes(b"junk")
    (folder / "images/Abyssinian_101.mat").write_bytes(b"junk")
    hand.draw(folder / "images/Abyssinian_34.jpg", 0)
    return root


def drawn_folder(root: Path) -> Iterator[tuple[str, Box]]:
    """Write the images of `folder` and yield their ids and boxes."""
    hand = pen()
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label, name in enumerate(("ant", "bee", "cow")):
            for i in range(count):
                image = f"{split}/{name}/{i}.jpg"
                yield image, hand.draw(root / image, label)


def make_folder(root: Path) -> Path:
    lines = [f"{name},{','.join(map(str, box))}" for name, box in drawn_folder(root)]
    write(root / "boxes.csv", ["image,x0,y0,x1,y1", *lines])
    return root


MAKERS: dict[str, Callable[[Path], Any]] = {
    "ilsvrc": make_ilsvrc,
    "openimages30k": make_openimages,
    "tiny-imagenet": make_tiny_imagenet,
    "stanford-dogs": make_stanford_dogs,
    "stanford-cars": make_stanford_cars,
    "fgvc-aircraft": make_fgvc_aircraft,
    "oxford-pet": make_oxford_pet,
    "folder": make_folder,
}
