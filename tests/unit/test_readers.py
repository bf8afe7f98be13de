"""Readers of annotations: real lines, what traps there are, and files that are damaged."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from miniatures import HEIGHT, MAKERS, WIDTH, drawn_folder, make_folder, pen, voc, write
from PIL import Image
from scipy.io import loadmat, savemat

from wsolbench.annotations import clipped, read_coco, read_rows, read_voc
from wsolbench.dataset import Dataset
from wsolbench.errors import InputError
from wsolbench.matlab import read_cells
from wsolbench.registry import DATASETS
from wsolbench.truth import read_truth

#: a fault says where: file, and the line where files have lines
_PLACED = re.compile(r".*/[\w.-]+(:\d+)?:? .+")


def opened(name: str, root: Path, holdout: int = 0) -> Dataset:
    return DATASETS.get(name)(root, holdout)


def refused(name: str, root: Path, said: str, holdout: int = 0) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        opened(name, root, holdout)
    assert "\n" not in str(caught.value)


@pytest.fixture
def fixtures(shared: Path) -> Path:
    return shared / "data/fixtures"


# --- the general ones -----------------------------------------------------------------------------


def test_real_voc_files(fixtures: Path) -> None:
    imagenet = read_voc(fixtures / "ilsvrc/ILSVRC2012_val_00000001.xml")
    assert imagenet.size == (500, 375)
    assert [(o.name, o.box) for o in imagenet.objects] == [("n01751748", (111, 108, 441, 193))]
    assert imagenet.objects[0].place.line == 14
    dog = read_voc(fixtures / "stanford_dogs/n02085620_7")
    assert (dog.size, dog.objects[0].box) == ((250, 188), (71, 1, 192, 180))
    several = read_voc(fixtures / "voc2012/2007_000032.xml").objects
    assert [o.name for o in several] == ["aeroplane", "aeroplane", "person", "person"]
    assert len(read_voc(fixtures / "oxford_pet/Bengal_105.xml").objects) == 2


def test_parts_of_an_object_are_not_the_object(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin></bndbox></part>"
    box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7.5</xmax><ymax>8</ymax></bndbox>"
    text = f"<annotation><object>{part}<name>person</name>{box}</object></annotation>"
    file = write(tmp_path / "x.xml", [text])
    assert [(o.name, o.box) for o in read_voc(file).objects] == [("person", (5, 6, 7.5, 8))]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<xmin>7</xmin>", "<xmin>x</xmin>", "x.xml:10: expected 1 numbers, got 'x'"),
        ("<xmin>7</xmin>", "<xmin>inf</xmin>", "x.xml:10: expected 1 numbers, got 'inf'"),
        ("<ymax>9</ymax>", "", "x.xml:7: the object has no bndbox/ymax"),
        ("<width>48</width>", "<width>0</width>", "x.xml:4: expected a number from 1 to 99999"),
        ("</bndbox>", "</box>", "x.xml:14: no XML (mismatched tag"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "x.xml:1: no XML (entities"),
    ],
)
def test_a_damaged_voc_file(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = voc(tmp_path / "x.xml", [(7, 8, 9, 9)], "ant")
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError, match=re.escape(said)):
        read_voc(file)


COCO: dict[str, Any] = {
    "info": {"annotations": [1, 2]},
    "images": [{"id": 7, "file_name": "test/a/1.jpg"}, {"id": 8, "file_name": "test/a/2.jpg"}],
    "annotations": [
        {"image_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 7, "bbox": [5, 6, 7.5, 8], "iscrowd": 0},
        {"image_id": 8, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ],
}


def test_coco_boxes_are_x_y_width_height(tmp_path: Path) -> None:
    file = write(tmp_path / "x.json", [json.dumps(COCO, indent=1)])
    found = {name: [box for _, box in boxes] for name, boxes in read_coco(file).items()}
    assert found == {"test/a/1.jpg": [(1, 2, 4, 6), (5, 6, 12.5, 14)]}
    lines = file.read_text().splitlines()
    place = read_coco(file)["test/a/1.jpg"][1][0]
    assert lines[place.line - 1].strip() == "{"
    assert "5" in lines[place.line + 2]


@pytest.mark.parametrize(
    ("key", "index", "field", "value", "said"),
    [
        ("annotations", 1, "image_id", 9, "image '9' is not among the images"),
        ("annotations", 2, "bbox", [1, 2, 3], "expected 4 numbers, got '1 2 3'"),
        ("annotations", 0, "bbox", [1, 2, 0, 3], "the box is 0 x 3 pixels"),
        ("annotations", 0, "bbox", "text", "expected 4 numbers, got 'text'"),
        ("images", 1, "id", [1], "'[1]' is no id of an image"),
        ("images", 0, "file_name", None, "images[0] needs id and file_name"),
    ],
)
def test_a_wrong_coco_entry_is_named_by_its_line(
    tmp_path: Path, key: str, index: int, field: str, value: object, said: str
) -> None:
    content = json.loads(json.dumps(COCO))
    content[key][index][field] = value
    if value is None:
        del content[key][index][field]
    text = json.dumps(content, indent=1)
    file = write(tmp_path / "x.json", [text])
    # an entry is what stands deeper than its list by one blank
    opening = [i for i, line in enumerate(text.splitlines(), 1) if line.startswith(f' "{key}"')]
    entries = [i for i, line in enumerate(text.splitlines(), 1) if line == "  {" and i > opening[0]]
    with pytest.raises(InputError, match=re.escape(f"x.json:{entries[index]}: {said}")):
        read_coco(file)


def test_a_csv_file_ends_without_a_newline_and_may_be_of_windows(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b"a,1\r\n\r\nb,2")
    assert [(p.line, row) for p, row in read_rows(file, 2)] == [(1, ["a", "1"]), (3, ["b", "2"])]
    with pytest.raises(InputError, match=r"x\.csv:1: expected the header image,x0, got 'a,1'"):
        list(read_rows(file, 2, ("image", "x0")))
    with pytest.raises(InputError, match=r"x\.csv:1: expected 3 fields"):
        list(read_rows(file, 3))


@given(st.tuples(*[st.floats(-500, 500)] * 4), st.tuples(st.integers(2, 300), st.integers(2, 300)))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_clipped_box_is_inside_and_has_an_area(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    x0, y0, x1, y1 = clipped(box, size)
    assert 0 <= x0 < x1 <= size[0] - 1
    assert 0 <= y0 < y1 <= size[1] - 1


@pytest.mark.parametrize("reader", [read_voc, read_coco, lambda f: list(read_rows(f, 5))])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8")))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_end_in_another_error(
    tmp_path: Path, reader: Callable[[Path], object], content: bytes
) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(content)
    try:
        reader(file)
    except InputError as error:
        assert re.fullmatch(r".*/x\.txt(:\d+)?: .+", str(error))


def test_a_crash_of_the_compiled_reader_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On damaged bytes it did crash, and the process with it."""
    file = tmp_path / "x.mat"
    file.write_bytes(b"damaged")
    monkeypatch.setattr("wsolbench.matlab._READER", "import os; os.abort()")
    with pytest.raises(InputError, match=r"x\.mat is no MATLAB file that can be read"):
        read_cells(file, "names")


# --- each dataset ---------------------------------------------------------------------------------


def texts(root: Path) -> list[Path]:
    kinds = ("*.txt", "*.csv", "*.xml", "*.mat", "*_?", "*.json")
    found = {f for kind in kinds for f in root.rglob(kind) if f.is_file() and f.stat().st_size}
    return sorted(f for f in found if "xmls" not in f.parts and f.name != "Abyssinian_101.mat")


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_damage_ends_in_our_error_or_in_samples(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes of one annotation file are replaced, or its end is cut off."""
    root = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    if not root.exists():
        MAKERS[name](root)
    file = data.draw(st.sampled_from(texts(root)))
    before = file.read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\n", b"9", b"-", b","]))
    cut = data.draw(st.booleans())
    file.write_bytes(before[:at] + (b"" if cut else junk + before[at + len(junk) :]))
    try:
        found = opened(name, root, 1)
        assert len(found.samples("test"))
        for sample in found.samples("val"):
            assert sample.boxes or sample.instance_masks
    except InputError as error:
        assert _PLACED.fullmatch(str(error)), str(error)
        assert str(root) in str(error)
    finally:
        file.write_bytes(before)


def test_openimages_lines(fixtures: Path, tmp_path: Path) -> None:
    """Real lines: the region to ignore stands on an image's first line only."""
    for split in ("train", "val", "test"):
        folder = tmp_path / "metadata/OpenImages" / split
        for kind in ("class_labels", "localization"):
            source = fixtures / f"wsolevaluation/OpenImages_{split}_{kind}.txt"
            if source.exists():
                folder.mkdir(parents=True, exist_ok=True)
                # no newline at the end of the official files
                (folder / f"{kind}.txt").write_bytes(source.read_bytes().rstrip(b"\n"))
        for line in (folder / "class_labels.txt").read_text().split("\n"):
            touch(tmp_path / "OpenImages" / line.split(",")[0])
        if split != "train":
            listed = {
                line.split(",")[0] for line in (folder / "localization.txt").read_text().split("\n")
            }
            images = (folder / "class_labels.txt").read_text().split("\n")
            kept = [line for line in images if line.split(",")[0] in listed]
            write(folder / "class_labels.txt", kept, end="")
            for line in (folder / "localization.txt").read_text().split("\n"):
                for name in filter(None, line.split(",")[1:]):
                    touch(tmp_path / "OpenImages" / name)
    data = opened("openimages30k", tmp_path, 1)
    first = data.samples("test")[0]
    assert first.image_id == "test/01226z/7af766bd43da900b.jpg"
    assert [m.name for m in first.instance_masks] == [
        "7af766bd43da900b_m01226z_6554d965.png",
        "7af766bd43da900b_m01226z_8856c605.png",
    ]
    assert first.ignore_mask is not None
    assert first.ignore_mask.name == "7af766bd43da900b_ignore.png"
    assert {s.image_id.split("/")[0] for s in data.samples("val")} == {"val"}


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_openimages_masks_of_every_mode(tmp_path: Path) -> None:
    MAKERS["openimages30k"](tmp_path)
    sample = opened("openimages30k", tmp_path).samples("test")[0]
    wanted = read_truth(sample)
    for mode, path in zip(("1", "RGBA"), sample.instance_masks, strict=True):
        with Image.open(path) as image:
            converted = image.convert(mode)
        converted.save(path)
    assert sample.ignore_mask is not None
    with Image.open(sample.ignore_mask) as image:
        converted = image.convert("RGB")
    converted.save(sample.ignore_mask)
    found = read_truth(sample)
    for before, after in zip(wanted.instance_masks, found.instance_masks, strict=True):
        assert before.any()
        assert np.array_equal(before, after)
    assert found.ignore_mask is not None
    assert wanted.ignore_mask is not None
    assert np.array_equal(found.ignore_mask, wanted.ignore_mask)


def test_openimages_refuses_labels_of_another_order(tmp_path: Path) -> None:
    MAKERS["openimages30k"](tmp_path)
    file = tmp_path / "metadata/OpenImages/test/class_labels.txt"
    lines = file.read_text().split("\n")
    write(file, [lines[0].replace(",0", ",1"), *lines[1:]], end="")
    refused("openimages30k", tmp_path, "class_labels.txt:1: label 1 is that of 0bt_c3")


def test_tiny_imagenet_lines(fixtures: Path, tmp_path: Path) -> None:
    """Real lines; labels are sorted although `wnids.txt` is not."""
    folder, real = tmp_path / "tiny-imagenet-200", fixtures / "tiny_imagenet"
    wnids = (real / "wnids.txt").read_text().split()
    assert wnids != sorted(wnids)
    write(folder / "wnids.txt", wnids)
    for wnid in wnids:
        touch(folder / f"train/{wnid}/images/{wnid}_0.JPEG")
        write(folder / f"train/{wnid}/{wnid}_boxes.txt", [f"{wnid}_0.JPEG\t0\t1\t2\t3"])
    lines = (real / "n01443537_boxes.txt").read_text()
    (folder / "train/n01443537/n01443537_boxes.txt").write_text(lines)
    for line in lines.split("\n"):
        touch(folder / "train/n01443537/images" / line.split("\t")[0]) if line else None
    shutil.copy(real / "val_annotations.txt", touched(folder / "val/val_annotations.txt"))
    for number in range(8):
        touch(folder / f"val/images/val_{number}.JPEG")
    data = opened("tiny-imagenet", tmp_path)
    assert data.class_names == tuple(sorted(wnids))
    test = data.samples("test")
    assert data.class_names[test[0].label] == "n03444034"
    assert list(test[0].boxes) == [(0, 32, 44, 62)]
    train = {s.image_id: s.boxes for s in data.official("train")}
    assert list(train["train/n01443537/n01443537_2.JPEG"]) == [(0, 0, 63, 63)]
    assert data.facts is not None
    digest = hashlib.sha256("\n".join(data.class_names).encode()).hexdigest()
    assert digest.startswith(data.facts.class_digest or "-")


def touched(file: Path) -> Path:
    touch(file)
    return file


def test_tiny_imagenet_boxes_without_area_are_counted(tiny_tiny_imagenet: Path) -> None:
    data = opened("tiny-imagenet", tiny_tiny_imagenet)
    assert data.notes == ("boxes of test images without area, made one pixel wide or high: 1",)
    for sample in data.samples("test"):
        read_truth(sample)


def test_a_dog_with_several_boxes_from_an_xml_without_an_ending(
    fixtures: Path, tmp_path: Path
) -> None:
    MAKERS["stanford-dogs"](tmp_path)
    folder = tmp_path / "stanford_dogs"
    image = folder / "Images/n02085620-Chihuahua/n02085620_1.jpg"
    Image.new("RGB", (250, 188)).save(image)
    shutil.copy(
        fixtures / "stanford_dogs/n02085620_7",
        folder / "Annotation/n02085620-Chihuahua/n02085620_1",
    )
    first, second, *_ = opened("stanford-dogs", tmp_path).samples("test")
    assert len(first.boxes) == 2
    assert list(second.boxes) == [(71, 1, 192, 180)]
    listed = fixtures / "stanford_dogs/sat_test_list.excerpt.txt"
    assert listed.read_text().startswith("n02085620-Chihuahua/n02085620_2650.jpg;0")


def test_cars_count_from_one_and_fields_are_found_by_name(tmp_path: Path) -> None:
    MAKERS["stanford-cars"](tmp_path)
    folder = tmp_path / "stanford_cars"
    before = opened("stanford-cars", tmp_path).samples("test")
    file = folder / "cars_test_annos_withlabels.mat"
    structs = loadmat(file)["annotations"]
    fields = ["fname", "class", "bbox_y2", "bbox_y1", "bbox_x2", "bbox_x1"]
    turned = np.array(
        [tuple(row[name] for name in fields) for row in structs.ravel()],
        dtype=[(name, object) for name in fields],
    )
    savemat(file, {"annotations": turned})
    again = opened("stanford-cars", tmp_path).samples("test")
    assert [s.boxes for s in again] == [s.boxes for s in before]
    x0, y0, x1, y1 = before[0].boxes[0]
    with Image.open(before[0].path) as image:
        inside = np.array(image)[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].astype(int)
        outside = np.array(image)[int(y0) - 1, int(x0) : int(x1)].astype(int)
    assert abs(inside - inside.mean(axis=(0, 1))).mean() < abs(outside - [220, 30, 30]).mean()
    structs[0, 0]["bbox_x1"][:] = 0
    savemat(file, {"annotations": structs})
    refused("stanford-cars", tmp_path, "annotations(1).bbox_x1 is 0, not a number from 1")


def test_a_car_that_is_turned_by_exif_and_a_mirrors_folders(tmp_path: Path) -> None:
    """Boxes are of the stored pixels, and one mirror has cars_test/cars_test."""
    MAKERS["stanford-cars"](tmp_path)
    before = opened("stanford-cars", tmp_path)
    sample = before.samples("test")[1]
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(sample.path) as image:
        pixels = image.copy()
    pixels.save(sample.path, exif=turned)
    truth = read_truth(sample)
    assert truth.size == (WIDTH, HEIGHT)
    assert truth.boxes.tolist() == [list(box) for box in sample.boxes]
    folder = tmp_path / "stanford_cars"
    (folder / "cars_test").rename(folder / "inner")
    (folder / "cars_test").mkdir()
    (folder / "inner").rename(folder / "cars_test/cars_test")
    after = opened("stanford-cars", tmp_path)
    assert after.fingerprint() == before.fingerprint()
    assert after.samples("test")[1].path.is_file()


def test_aircraft_lines_are_split_once_and_boxes_are_not_shifted(
    fixtures: Path, tmp_path: Path
) -> None:
    real = fixtures / "fgvc_aircraft"
    folder = tmp_path / "fgvc-aircraft-2013b/data"
    lines = (real / "images_box.reconstructed.txt").read_text().splitlines()
    sizes = {}
    for line in (real / "sat_images_box.excerpt.txt").read_text().splitlines():
        name, _, _, numbers = line.split(";")
        *_, height, width = numbers.split()
        sizes[name] = (int(width), int(height))
    for name, size in sizes.items():
        touch(folder / f"images/{name}.jpg")
        Image.new("L", size).save(folder / f"images/{name}.jpg")
    write(folder / "images_box.txt", lines)
    write(folder / "variants.txt", ["707-320", "F/A-18 B"])
    names = list(sizes)
    write(folder / "images_variant_trainval.txt", [f"{n} 707-320" for n in names[:4]])
    write(folder / "images_variant_test.txt", [f"{n} F/A-18 B" for n in names[4:]])
    data = opened("fgvc-aircraft", tmp_path)
    assert [s.label for s in data.samples("test")] == [1, 1]
    found = {s.image_id: s.boxes for s in [*data.official("train"), *data.official("test")]}
    assert list(found["1025794.jpg"]) == [(3, 144, 998, 431)]
    boxes = folder / "images_box.txt"
    write(boxes, [lines[0].replace("3 144 998 431", "0 144 1024 431"), *lines[1:]])
    data = opened("fgvc-aircraft", tmp_path)
    assert list(next(iter(data.official("train"))).boxes) == [(0, 144, 1023, 431)]


def test_boxes_of_heads_are_not_of_pets(fixtures: Path, tmp_path: Path) -> None:
    MAKERS["oxford-pet"](tmp_path)
    folder = tmp_path / "oxford-iiit-pet/annotations"
    before = opened("oxford-pet", tmp_path)
    shutil.copy(fixtures / "oxford_pet/Abyssinian_173.xml", folder / "xmls/Abyssinian_0.xml")
    assert opened("oxford-pet", tmp_path).fingerprint() == before.fingerprint()
    shutil.rmtree(folder / "xmls")
    assert opened("oxford-pet", tmp_path).fingerprint() == before.fingerprint()
    sample = before.samples("test")[0]
    truth = read_truth(sample)
    ((x0, y0, x1, y1),) = truth.boxes.astype(int)
    (object_,) = truth.instance_masks
    border = truth.ignore_mask
    assert border is not None
    assert object_.any()
    assert not (object_ & border).any()
    seen = object_ | border
    assert seen[y0:y1, x0:x1].all()
    assert seen.sum() == (x1 - x0) * (y1 - y0)
    for line in (fixtures / "oxford_pet/trainval.txt").read_text().splitlines()[:1]:
        write(folder / "trainval.txt", [line])
    refused("oxford-pet", tmp_path, "trainval.txt:1: images/Abyssinian_100.jpg does not exist")


def test_pets_without_a_foreground_and_disguised_files(tmp_path: Path) -> None:
    """One trimap lacks the value 1; a GIF and a PNG are called .jpg."""
    MAKERS["oxford-pet"](tmp_path)
    sample = opened("oxford-pet", tmp_path).samples("test")[0]
    with Image.open(sample.instance_masks[0]) as image:
        values = np.array(image)
    values[values == 1] = 3
    Image.fromarray(values).save(sample.instance_masks[0])
    with Image.open(sample.path) as image:
        image.convert("P").save(sample.path, "GIF")
    again = opened("oxford-pet", tmp_path).samples("test")[0]
    assert again.boxes == sample.boxes
    assert not read_truth(again).instance_masks[0].any()


# --- one's own ------------------------------------------------------------------------------------


def as_coco(root: Path) -> None:
    found = list(drawn_folder(root))
    images = [{"id": i, "file_name": name} for i, (name, _) in enumerate(found)]
    boxes = [
        {"image_id": i, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for i, (_, (x0, y0, x1, y1)) in enumerate(found)
    ]
    write(root / "boxes.json", [json.dumps({"images": images, "annotations": boxes})])


def as_voc(root: Path) -> None:
    for name, box in drawn_folder(root):
        voc((root / "boxes" / name).with_suffix(".xml"), [box], "thing")


def test_the_forms_of_boxes_say_the_same(tmp_path: Path) -> None:
    make_folder(tmp_path / "csv")
    as_coco(tmp_path / "coco")
    as_voc(tmp_path / "voc")
    prints = {opened("folder", tmp_path / kind).fingerprint() for kind in ("csv", "coco", "voc")}
    assert len(prints) == 1
    sample = opened("folder", tmp_path / "csv").samples("test")[0]
    truth = read_truth(sample)
    assert truth.size == (WIDTH, HEIGHT)
    assert len(truth.boxes) == 1


def test_masks_alone_and_a_folder_val(tmp_path: Path) -> None:
    hand = pen()
    for name, (x0, y0, x1, y1) in list(drawn_folder(tmp_path)):
        mask = (tmp_path / "masks" / name).with_suffix("")
        hand.mask(mask.with_name(f"{mask.name}_1.png"), (x0, y0, x1, y0 + 4))
        hand.mask(mask.with_name(f"{mask.name}_2.png"), (x0, y0 + 5, x1, y1))
    data = opened("folder", tmp_path, 1)
    assert data.task == "mask"
    assert all(len(s.instance_masks) == 2 for s in data.samples("test"))
    assert data.holdout_name() == "1 training images a class"
    for kind in ("", "masks"):
        (tmp_path / kind / "val/ant").mkdir(parents=True)
    (tmp_path / "train/ant/0.jpg").rename(tmp_path / "val/ant/0.jpg")
    for number in (1, 2):
        name = f"0_{number}.png"
        (tmp_path / f"masks/train/ant/{name}").rename(tmp_path / f"masks/val/ant/{name}")
    data = opened("folder", tmp_path, 1)
    assert data.holdout_name() == "the folder val"
    assert [s.image_id for s in data.samples("val")] == ["val/ant/0.jpg"]


def _edit(root: Path, old: str, new: str) -> None:
    file = root / "boxes.csv"
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: _edit(r, "image,x0", "x0,image"), "boxes.csv:1: expected the header image,x0"),
        (lambda r: _edit(r, "train/ant/0.jpg", "train/ant/9.jpg"), "boxes.csv:2: there is no im"),
        (lambda r: _edit(r, "train/ant/0", "../ant/0"), "'../ant/0.jpg' is no plain path"),
        (lambda r: (r / "test/ant/0.jpg").rename(r / "test/ant/7.jpg"), "there is no image"),
        (lambda r: (r / "boxes.csv").unlink(), "has no boxes and no masks"),
        (lambda r: write(r / "boxes.json", ["{}"]), "both hold boxes; keep one of them"),
        (lambda r: (r / "train/ant").rename(r / "train/axe"), "test/ant has no class in train"),
        (lambda r: (r / "test/eel").mkdir(), "test/eel has no class in train"),
        (
            lambda r: (
                (r / "masks").mkdir(),
                shutil.copy(r / "test/ant/0.jpg", r / "test/ant/0.jpeg"),
            ),
            "masks cannot tell test/ant/0.jpeg from test/ant/0.jpg",
        ),
        (lambda r: shutil.rmtree(r / "test"), "test does not exist; --data-root must be"),
        (lambda r: shutil.copy(r / "test/ant/0.jpg", r / "test/ant/5.jpg"), "1 of 7 test and val"),
    ],
)
def test_what_is_wrong_with_ones_own_is_said(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    make_folder(tmp_path)
    change(tmp_path)
    refused("folder", tmp_path, said)


def test_no_boxes_of_training_images_make_no_holdout(tmp_path: Path) -> None:
    make_folder(tmp_path)
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    write(tmp_path / "boxes.csv", [line for line in lines if not line.startswith("train")])
    assert len(opened("folder", tmp_path).samples("train")) == 12
    refused("folder", tmp_path, "0 training images of class ant have boxes or masks", holdout=1)


def test_corners_in_a_wrong_order_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    write(tmp_path / "boxes.csv", [lines[0], "train/ant/0.jpg,9,9,3,3", *lines[2:]])
    refused("folder", tmp_path, "boxes.csv:2: the box 9, 9, 3, 3 ends before it begins")
