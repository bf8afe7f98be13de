"""ImageNet: every layout gives the same samples, and what is half right is refused."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniatures import HEIGHT, TRAIN, V2, WIDTH, WNIDS, make_ilsvrc, make_v2, v2_id, voc, write

from wsolbench.dataset import Dataset
from wsolbench.errors import InputError
from wsolbench.index import index_file
from wsolbench.registry import DATASETS


def opened(root: Path, holdout: int = 0) -> Dataset:
    return DATASETS.get("ilsvrc")(root, holdout)


@pytest.fixture
def root(tiny_ilsvrc: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, without what other tests had read of it."""
    index = shutil.ignore_patterns(index_file(tiny_ilsvrc, "ilsvrc").parent.name)
    shutil.copytree(tiny_ilsvrc, tmp_path / "data", ignore=index)
    return tmp_path / "data"


@pytest.fixture
def module() -> Any:
    DATASETS.names()
    return importlib.import_module("wsolbench.datasets.ilsvrc")


def refused(root: Path, said: str, holdout: int = 0) -> None:
    with pytest.raises(InputError) as caught:
        opened(root, holdout)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message


# --- layouts --------------------------------------------------------------------------------------


def test_the_miniature(root: Path) -> None:
    data = opened(root, 5)
    assert data.class_names == WNIDS
    assert Counter(s.label for s in data.samples("train")) == dict.fromkeys(range(3), TRAIN)
    assert not any(s.boxes or s.annotation for s in data.samples("train"))
    test = data.samples("test")
    assert [s.label for s in test] == [2, 1, 0, 2, 1, 0]
    assert test[0].image_id == "val/ILSVRC2012_val_00000001.JPEG"
    assert all(len(s.boxes) == 2 and s.boxes[1] == (0, 0, 9, 9) for s in test)
    assert data.holdout_name() == "ImageNetV2 Threshold0.7"
    assert len(data.samples("val")) == 3 * V2


def sorted_into_folders(root: Path) -> None:
    for sample in opened(root).samples("test"):
        folder = root / "ILSVRC/val" / WNIDS[sample.label]
        folder.mkdir(exist_ok=True)
        sample.path.rename(folder / sample.path.name)


def kaggle(root: Path) -> None:
    old, new = root / "ILSVRC", root / "moved"
    for name, place in (("train", "Data"), ("val", "Data")):
        shutil.copytree(old / name, new / place / "CLS-LOC" / name)
    for split in ("train", "val"):
        shutil.copytree(old / f"bbox_{split}", new / "Annotations/CLS-LOC" / split)
    shutil.rmtree(old)
    new.rename(old)


def kaggle_with_csv(root: Path) -> None:
    test = opened(root).samples("test")
    kaggle(root)
    shutil.rmtree(root / "ILSVRC/Annotations/CLS-LOC/val")
    lines = [
        f"{s.path.stem},"
        + "".join(f"{WNIDS[s.label]} {' '.join(str(int(v)) for v in box)} " for box in s.boxes)
        for s in test
    ]
    random.Random(0).shuffle(lines)
    write(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *lines])


def xml_beside_the_images(root: Path) -> None:
    for file in (root / "ILSVRC/bbox_val").iterdir():
        file.rename(root / "ILSVRC/val" / file.name)
    (root / "ILSVRC/bbox_val").rmdir()


def as_torchvision_has_it(root: Path) -> None:
    sorted_into_folders(root)
    (root / "ILSVRC/bbox_val").rename(root / "val")
    (root / "ILSVRC/bbox_val").mkdir()
    (root / "val").rename(root / "ILSVRC/bbox_val/val")
    (root / "ILSVRC").rename(root / "imagenet")


def renamed(root: Path) -> None:
    shutil.rmtree(root / "imagenetv2-threshold0.7-format-val")
    make_v2(root, renamed=True)


@pytest.mark.parametrize(
    "change",
    [sorted_into_folders, kaggle, kaggle_with_csv, xml_beside_the_images, as_torchvision_has_it],
)
def test_every_layout_gives_the_same(root: Path, change: Callable[[Path], None]) -> None:
    before = opened(root, 1).fingerprint()
    change(root)
    assert opened(root, 1).fingerprint() == before


@pytest.mark.parametrize("top", ["ILSVRC/val2", "imagenetv2-threshold0.7/imagenetv2-threshold0.7"])
def test_the_folder_of_the_holdout_has_several_names(root: Path, top: str) -> None:
    before = opened(root, 1).fingerprint()
    (root / top).parent.mkdir(exist_ok=True)
    (root / "imagenetv2-threshold0.7-format-val").rename(root / top)
    assert opened(root, 1).fingerprint() == before


# --- labels and boxes -----------------------------------------------------------------------------


def test_real_annotation_lines(shared: Path, tmp_path: Path) -> None:
    """The XML of val image 1 and Kaggle's rows, with labels in the order in use."""
    fixtures = shared / "data/fixtures/ilsvrc"
    wnids = (fixtures / "wnids_sorted.txt").read_text().split()
    make_ilsvrc(tmp_path, v2=False)
    folder = tmp_path / "ILSVRC"
    for name in ("val", "bbox_val", "bbox_train", "train"):
        shutil.rmtree(folder / name)
    for wnid in wnids:
        (folder / "train" / wnid).mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_1.JPEG").touch()
    large(folder / "val/ILSVRC2012_val_00000001.JPEG", 500, 375)
    (folder / "bbox_val").mkdir()
    shutil.copy(fixtures / "ILSVRC2012_val_00000001.xml", folder / "bbox_val")
    (sample,) = opened(tmp_path).samples("test")
    assert sample.label == 65
    assert wnids[65] == "n01751748"
    assert list(sample.boxes) == [(111, 108, 441, 193)]
    shutil.rmtree(folder / "bbox_val")
    shutil.copy(fixtures / "LOC_val_solution.excerpt.csv", tmp_path / "LOC_val_solution.csv")
    (folder / "val/ILSVRC2012_val_00000001.JPEG").unlink()
    for number in (48981, 37956, 8726):
        large(folder / f"val/ILSVRC2012_val_{number:08d}.JPEG", 500, 375)
    first, _, last = opened(tmp_path).samples("test")
    assert wnids[first.label] == "n02119789"
    assert list(first.boxes) == [(255, 142, 454, 329), (44, 21, 322, 295)]
    assert wnids[last.label] == "n03995372"
    devkit = [line.split()[0] for line in (fixtures / "map_clsloc.txt").read_text().splitlines()]
    assert opened(tmp_path).class_names == tuple(sorted(devkit))
    assert not any(a == b for a, b in zip(opened(tmp_path).class_names, devkit, strict=True))


def large(file: Path, width: int, height: int) -> None:
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(file)


def test_val_sorted_by_the_devkits_numbers_is_refused(root: Path) -> None:
    sorted_into_folders(root)
    folder = root / "ILSVRC/val"
    (folder / WNIDS[0]).rename(folder / "other")
    (folder / WNIDS[1]).rename(folder / WNIDS[0])
    (folder / "other").rename(folder / WNIDS[1])
    refused(root, "sort val by the classes of the boxes, not by the devkit's numbers")
    sorted_names = folder / "1"
    (folder / WNIDS[0]).rename(sorted_names)
    refused(root, f"{sorted_names} is no WordNet id")


def test_several_boxes_and_a_size_that_is_not_the_files(root: Path) -> None:
    test = opened(root).samples("test")[0]
    xml = root / f"ILSVRC/bbox_val/{test.path.stem}.xml"
    twice = [(20, 10, 60, 40), (0, 0, 2 * WIDTH, 2 * HEIGHT)]
    voc(xml, twice, WNIDS[2], (2 * WIDTH, 2 * HEIGHT))
    found = opened(root).samples("test")[0].boxes
    assert list(found) == [(10, 5, 30, 20), (0, 0, WIDTH - 1, HEIGHT - 1)]


def test_train_boxes_are_scaled_put_in_order_and_clipped(root: Path) -> None:
    """Boxes are relative to the size in the file, outside or reversed; names and files are odd."""
    shutil.rmtree(root / "imagenetv2-threshold0.7-format-val")
    data = opened(root, 2)
    assert data.holdout_name() == "2 training images a class"
    assert len(data.samples("train")) == 3 * (TRAIN - 2)
    (sample, *_) = data.samples("val")
    assert len(sample.boxes) == 1
    ((x0, y0, x1, y1),) = sample.boxes
    assert 0 < x0 < x1 < WIDTH
    assert 0 < y0 < y1 < HEIGHT
    xml = root / f"ILSVRC/bbox_train/{WNIDS[0]}/{sample.path.stem}.xml"
    odd = [(60, 40, 20, 10), (90, 70, 300, 300), (200, 5, 210, 9)]
    voc(xml, odd, "Scottish_deerhound", (96, 80), "%s")
    (again, *_) = opened(root, 2).samples("val")
    assert list(again.boxes) == [(10, 5, 30, 20), (45, 35, 47, 39), (46, 2.5, 47, 4.5)]


def test_a_holdout_without_any_boxes_is_refused(root: Path) -> None:
    shutil.rmtree(root / "imagenetv2-threshold0.7-format-val")
    shutil.rmtree(root / "ILSVRC/bbox_train")
    assert len(opened(root).samples("test")) == 6
    refused(root, "add ImageNetV2 (`download ilsvrc`)", holdout=1)


def _drop_xml(root: Path) -> None:
    (root / "ILSVRC/bbox_val/ILSVRC2012_val_00000002.xml").unlink()


def _drop_image(root: Path) -> None:
    (root / "ILSVRC/val/ILSVRC2012_val_00000002.JPEG").unlink()


def _stray_class(root: Path) -> None:
    (root / "ILSVRC/train/extra").mkdir()


def _drop_class(root: Path) -> None:
    shutil.rmtree(root / "ILSVRC/train" / WNIDS[1])
    shutil.rmtree(root / "imagenetv2-threshold0.7-format-val")


def _outside(root: Path) -> None:
    xml = root / "ILSVRC/bbox_val/ILSVRC2012_val_00000001.xml"
    voc(xml, [(60, 5, 70, 9)], WNIDS[2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop_xml, "lacks boxes of 1 of 6 images, such as ILSVRC2012_val_00000002"),
        (_drop_image, "lacks 1 images that have boxes, such as ILSVRC2012_val_00000002"),
        (_stray_class, "extra is no WordNet id"),
        (_drop_class, f"class '{WNIDS[1]}' has no folder in train"),
        (_outside, "has nothing in an image of 48x40"),
    ],
)
def test_half_of_it_is_refused(root: Path, change: Callable[[Path], None], said: str) -> None:
    change(root)
    refused(root, said)


# --- the hold-out ---------------------------------------------------------------------------------


def digest() -> str:
    lines = [" ".join(v2_id(c, k) for k in range(V2)) for c in range(3)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_new_names_give_the_same_as_old_ones(
    root: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(root, 1)
    renamed(root)
    refused(root, "is not the list of Threshold0.7's ids")
    monkeypatch.setattr(module, "THRESHOLD07", digest())
    after = opened(root, 1)
    assert after.fingerprint() == before.fingerprint()
    # the order of the new names is another one than that of the old
    paths = [s.path.name for s in after.samples("val")[:V2]]
    assert paths != sorted(paths)
    (root / "imagenetv2-a-44.json").unlink()
    refused(root, "need the official list of ids")
    pairs = [f"{c}/{k}.jpeg, {c}/{v2_id(c, k)}.jpeg" for c in range(3) for k in range(V2)]
    write(root / "metadata/ILSVRC/val/mapping.txt", pairs, end="")
    assert opened(root, 1).fingerprint() == before.fingerprint()


def test_an_id_of_another_variant_is_refused(
    root: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed(root)
    monkeypatch.setattr(module, "THRESHOLD07", digest())
    folder = root / "imagenetv2-threshold0.7-format-val"
    file = folder / f"1/{v2_id(1, 4)}.jpeg"
    file.rename(folder / f"1/{'f' * 40}.jpeg")
    refused(root, f"{'f' * 40}.jpeg is not in Threshold0.7")


def test_the_official_ids_pass(shared: Path, tmp_path: Path, module: Any) -> None:
    """The list of ids, shuffled among classes as the official JSON is, and PR 53's lines."""
    fixtures = shared / "data/fixtures"
    rows = (fixtures / "imagenetv2/threshold0.7_ids.txt").read_text().split("\n")
    ids = [row.split() for row in rows if row]
    wnids = (fixtures / "ilsvrc/wnids_sorted.txt").read_text().split()
    order = list(range(1000))
    random.Random(0).shuffle(order)
    pairs = [[ids[c][k], wnids[c]] for k in range(10) for c in order]
    file = write(tmp_path / "imagenetv2-a-44.json", [json.dumps({"image_filenames": pairs})])
    old = module._pairing(file)
    assert len(old) == 10_000
    lines = (fixtures / "wsolevaluation/PR53_mapping.txt").read_text().split("\n")
    for line in filter(None, lines):
        before, after = line.split(", ")
        assert old[after.split("/")[1].split(".")[0]] == tuple(
            int(part) for part in before.removesuffix(".jpeg").split("/")
        )
    pairs[0], pairs[1000] = pairs[1000], pairs[0]
    with pytest.raises(InputError, match="is not the list"):
        module._pairing(write(file, [json.dumps({"image_filenames": pairs})]))


def test_folders_are_numbers_and_sizes_are_compared(root: Path) -> None:
    folder = root / "imagenetv2-threshold0.7-format-val"
    large(folder / "0/0.jpeg", WIDTH + 1, HEIGHT)
    refused(root, "the hold-out is ImageNetV2 Threshold0.7", 1)


def test_folder_ten_is_class_ten(tmp_path: Path, module: Any) -> None:
    """Sorted as text it would be the third."""
    for label in range(11):
        for number in range(V2):
            large(tmp_path / f"v2/{label}/{number}.jpeg", 2, 2)
    sizes = write(tmp_path / "sizes.txt", ["val2/0/0.jpeg,2,2"])
    v2 = module._V2(tmp_path / "v2", tmp_path / "boxes.txt", None, sizes)
    files = module._v2_files(v2, 11)
    assert list(files) == sorted(files)
    assert len(files) == 110
    assert files[(10, 3)] == tmp_path / "v2/10/3.jpeg"
    assert files[(2, 3)] == tmp_path / "v2/2/3.jpeg"


def _swapped(folder: Path) -> None:
    file = folder.parent / "metadata/ILSVRC/val/image_sizes.txt"
    lines = [line.split(",") for line in file.read_text().split("\n")]
    write(file, [f"{name},{height},{width}" for name, width, height in lines], end="")


def _wnids(folder: Path) -> None:
    (folder / "0").rename(folder / "n01440764")


def _matched(folder: Path) -> None:
    folder.rename(folder.with_name("imagenetv2-matched-frequency-format-val"))


def _too_few(folder: Path) -> None:
    (folder / "2/9.jpeg").unlink()


def _no_sizes(folder: Path) -> None:
    (folder.parent / "metadata/ILSVRC/val/image_sizes.txt").unlink()


def _box_outside(folder: Path) -> None:
    file = folder.parent / "ImageNetV2_boxes.txt"
    lines = file.read_text().splitlines()
    write(file, [*lines[:1], f"0/0.jpeg,1,1,{WIDTH + 1},9", *lines[2:]])


def _missing_folder(folder: Path) -> None:
    shutil.rmtree(folder / "1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_wnids, "has WordNet ids, as a withdrawn release had"),
        (_matched, "is another variant"),
        (_too_few, "has 9 images, not 10"),
        (_no_sizes, "has the old names, which every variant has"),
        (_box_outside, "ImageNetV2_boxes.txt:2: the box reaches past"),
        (_missing_folder, "must have folders 0 to 2"),
        (_swapped, "is (48, 40), "),
    ],
)
def test_another_variant_is_refused(root: Path, change: Callable[[Path], None], said: str) -> None:
    change(root / "imagenetv2-threshold0.7-format-val")
    refused(root, said)


def test_real_boxes_of_the_holdout(shared: Path, tmp_path: Path, module: Any) -> None:
    """Classes by number, not by text; far corners clipped as the metadata has them."""
    fixtures = shared / "data/fixtures"
    v2 = module._V2(tmp_path, fixtures / "imagenetv2/boxes_class0_558_and_100_5.txt", None, None)
    shutil.copy(v2.boxes, tmp_path / "ImageNetV2_boxes.txt")
    v2 = module._V2(tmp_path, tmp_path / "ImageNetV2_boxes.txt", None, None)
    boxes = module._v2_boxes(v2, {})
    assert [box for _, box in boxes[(0, 0)]] == [(156, 163, 318, 230)]
    assert len(boxes[(0, 5)]) == 4
    clipped = module.clipped(boxes[(0, 5)][3][1], (500, 500))
    assert clipped == (158, 290, 244, 499)
    sizes = module._V2(
        tmp_path, v2.boxes, None, fixtures / "imagenetv2/sizes_class0_558_and_100_5.txt"
    )
    assert module._v2_sizes(sizes)[(558, 2)] == (333, 500)
    metadata = module._V2(
        tmp_path, fixtures / "wsolevaluation/ILSVRC_val_localization.txt", None, None
    )
    assert module._v2_boxes(metadata, {})[(0, 0)][0][1] == (156, 163, 318, 230)
