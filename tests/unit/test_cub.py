"""CUB-200-2011: the official layout is read as it is, and half a dataset is refused."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import CLASSES, make_cub

from wsolbench.dataset import Dataset, shuffled_labels
from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.metrics.measure import measure
from wsolbench.protocol import load_protocol, protocol_names
from wsolbench.registry import DATASETS
from wsolbench.truth import read_truth


def _cub(root: Path, holdout: int = 0) -> Dataset:
    return DATASETS.get("cub")(root, holdout)


@pytest.fixture
def broken(tiny_cub: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset that a test may spoil."""
    shutil.copytree(tiny_cub, tmp_path / "data")
    return tmp_path / "data"


def _edit(root: Path, text: str, change: Callable[[list[str]], list[str]]) -> Path:
    path = root / "CUB_200_2011" / text
    lines = change(path.read_text().splitlines())
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _error(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        _cub(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is read ---------------------------------------------------------------------------------


def test_the_tiny_dataset(tiny_cub: Path) -> None:
    cub = _cub(tiny_cub)
    assert (cub.name, cub.task) == ("cub", "box")
    assert cub.class_names == CLASSES
    train, test = cub.samples("train"), cub.samples("test")
    assert Counter(s.label for s in train) == {0: 8, 1: 8, 2: 8}
    assert Counter(s.label for s in test) == {0: 4, 1: 4, 2: 4}
    assert cub.samples("val") == []
    assert all(s.path.is_file() and s.path.as_posix().endswith(s.image_id) for s in [*train, *test])


def test_the_tiny_dataset_is_the_same_wherever_it_is_drawn(tiny_cub: Path, tmp_path: Path) -> None:
    again = _cub(make_cub(tmp_path))
    assert again.fingerprint() == _cub(tiny_cub).fingerprint()
    for mine, theirs in zip(again.samples("test"), _cub(tiny_cub).samples("test"), strict=True):
        assert mine.path.read_bytes() == theirs.path.read_bytes()


def test_real_photographs_are_read_as_they_are(shared: Path) -> None:
    root = shared / "data/cub30"
    cub = _cub(root)
    train, test = cub.official("train"), cub.official("test")
    assert cub.num_classes == 30
    assert cub.class_names[0] == "001.Black_footed_Albatross"
    assert cub.class_names[29] == "030.Fish_Crow"
    assert (len(train), len(test)) == (900, 801)
    assert {s.label for s in train} == {s.label for s in test} == set(range(30))
    assert Counter(s.label for s in train) == dict.fromkeys(range(30), 30)
    # lines 1 and 3 of bounding_boxes.txt: 46 21 248 232 and 10 83 287 137
    assert test[0].image_id == "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
    assert test[0].boxes == ((46.0, 21.0, 294.0, 253.0),)
    assert test[1].boxes == ((10.0, 83.0, 297.0, 220.0),)
    assert not {s.image_id for s in train} & {s.image_id for s in test}


def test_folders_and_files_may_differ_in_case(shared: Path) -> None:
    ids = [s.image_id for s in _cub(shared / "data/cub30").official("test")]
    assert any(i.startswith("022.Chuck_will_Widow/Chuck_Will_Widow_") for i in ids)


def test_official_lines_of_far_apart_classes(shared: Path, tmp_path: Path) -> None:
    """Ids and class ids with gaps; boxes that leave the image stay as annotated."""
    folder = tmp_path / "CUB_200_2011"
    shutil.copytree(shared / "data/fixtures/cub", folder)
    for line in (folder / "images.txt").read_text().splitlines():
        image = folder / "images" / line.split()[1]
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    cub = _cub(tmp_path)
    by_id = {s.image_id: s for split in ("train", "test") for s in cub.official(split)}
    assert (len(cub.official("train")), len(cub.official("test"))) == (6, 8)
    assert cub.num_classes == 10
    widow = by_id["022.Chuck_will_Widow/Chuck_Will_Widow_0051_796991.jpg"]
    assert widow.boxes == ((92.0, 51.0, 532.0, 354.0),)
    assert cub.class_names[widow.label] == "022.Chuck_will_Widow"
    last = by_id["200.Common_Yellowthroat/Common_Yellowthroat_0055_190967.jpg"]
    assert (last.label, last.boxes) == (9, ((20.0, 113.0, 197.0, 376.0),))


def test_files_without_a_last_newline_or_with_windows_ones(broken: Path) -> None:
    expected = _cub(broken).fingerprint()
    folder = broken / "CUB_200_2011"
    labels = folder / "image_class_labels.txt"
    labels.write_bytes(labels.read_bytes().rstrip(b"\n"))
    boxes = folder / "bounding_boxes.txt"
    boxes.write_bytes(boxes.read_bytes().replace(b"\n", b"\r\n"))
    assert _cub(broken).fingerprint() == expected


def test_the_order_of_the_other_files_does_not_matter(broken: Path) -> None:
    expected = _cub(broken).fingerprint()
    for text in ("image_class_labels.txt", "bounding_boxes.txt", "train_test_split.txt"):
        _edit(broken, text, lambda lines: lines[::-1])
    assert _cub(broken).fingerprint() == expected


def test_stray_files_are_not_images(broken: Path) -> None:
    expected = _cub(broken).fingerprint()
    (broken / "CUB_200_2011/images" / CLASSES[0] / "extra_rgb.jpg").touch()
    assert _cub(broken).fingerprint() == expected


def test_the_texts_are_read_once(broken: Path) -> None:
    cub = _cub(broken)
    before = cub.samples("test")
    (broken / "CUB_200_2011/images.txt").unlink()
    assert cub.samples("test") == before


def test_looking_for_the_images_costs_no_call_each(
    tiny_cub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    original = os.scandir

    def scandir(path: str) -> Any:
        listed.append(path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    _cub(tiny_cub)
    assert sorted(Path(path).name for path in listed) == sorted(CLASSES)


@given(boxes=st.lists(st.tuples(*[st.floats(0.01, 999.99)] * 4), min_size=36, max_size=36))
@settings(max_examples=10, deadline=None)
def test_any_positive_box_survives(
    tiny_cub: Path,
    tmp_path_factory: pytest.TempPathFactory,
    boxes: list[tuple[float, float, float, float]],
) -> None:
    root = tmp_path_factory.mktemp("boxes")
    shutil.copytree(tiny_cub, root, dirs_exist_ok=True)
    _edit(
        root,
        "bounding_boxes.txt",
        lambda _: [f"{i + 1} {x!r} {y!r} {w!r} {h!r}" for i, (x, y, w, h) in enumerate(boxes)],
    )
    cub = _cub(root)
    read = {s.boxes[0] for split in ("train", "test") for s in cub.official(split)}
    assert read == {(x, y, x + w, y + h) for x, y, w, h in boxes}


@pytest.mark.parametrize("name", protocol_names())
def test_a_box_past_its_image_ends_where_the_protocol_says(broken: Path, name: str) -> None:
    """With Choe et al. at the last pixel; SAT and TS-CAM scale x+w and y+h first."""
    _edit(broken, "bounding_boxes.txt", lambda lines: [f"{i + 1} 3 2 900 800" for i in range(36)])
    truth, protocol = read_truth(_cub(broken).official("test")[0]), load_protocol(name)
    width, height = truth.size
    authors = name in ("sat", "sat-sweep", "ts-cam")
    far = [903, 802] if authors else [width - 1, height - 1]
    size, geometry = truth.size, protocol.geometry
    wanted = F.true_boxes(np.array([[3.0, 2.0, *far]]), size, geometry, protocol.truth)
    measured = measure(truth, protocol, None, np.array([0.0, 0, 9, 9]), None, 224, 0)
    assert measured.true is not None
    np.testing.assert_array_equal(measured.true, wanted)


# --- hold-out -------------------------------------------------------------------------------------


def test_the_holdout_is_disjoint_nested_and_alone_has_boxes(shared: Path) -> None:
    root = shared / "data/cub30"
    full = {s.image_id for s in _cub(root).samples("train")}
    five = _cub(root, holdout=5)
    train, val = five.samples("train"), five.samples("val")
    ids = {s.image_id for s in val}
    assert Counter(s.label for s in val) == dict.fromkeys(range(30), 5)
    assert len(train) == 750
    assert not ids & {s.image_id for s in train}
    assert ids | {s.image_id for s in train} == full
    assert not any(s.boxes or s.instance_masks or s.ignore_mask for s in train)
    assert all(len(s.boxes) == 1 for s in val)
    assert {s.image_id for s in _cub(root, holdout=3).samples("val")} < ids
    assert five.samples("test") == _cub(root).samples("test")
    assert five.fingerprint() == _cub(root).fingerprint()


def test_training_samples_have_no_boxes_without_a_holdout_either(tiny_cub: Path) -> None:
    assert not any(s.boxes for s in _cub(tiny_cub).samples("train"))


def test_shuffled_labels_are_a_permutation_that_the_seed_decides(tiny_cub: Path) -> None:
    train = DATASETS.get("cub")(tiny_cub).samples("train")
    first, again, other = (shuffled_labels(train, seed) for seed in (0, 0, 1))
    assert first == again
    for dealt in (first, other):
        assert [replace(s, label=0) for s in dealt] == [replace(s, label=0) for s in train]
        assert sorted(s.label for s in dealt) == sorted(s.label for s in train)
    labels = [[s.label for s in samples] for samples in (train, first, other)]
    assert labels[0] != labels[1] != labels[2] != labels[0]
    assert shuffled_labels(train[::-1], 0)[::-1] == first


def test_a_holdout_that_leaves_nothing_is_refused(tiny_cub: Path) -> None:
    with pytest.raises(InputError, match="class 0 has 8 training images, a hold-out of 8"):
        _cub(tiny_cub, holdout=8).samples("train")


# --- what is refused ------------------------------------------------------------------------------

LAYOUT = (
    "CUB_200_2011/{images/, images.txt, image_class_labels.txt, bounding_boxes.txt, "
    "train_test_split.txt, classes.txt}"
)


def test_a_missing_root_names_the_expected_tree(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    assert _error(tmp_path) == (
        f"{folder} does not exist; --data-root must be the folder that contains {LAYOUT}"
    )


@pytest.mark.parametrize(
    "name",
    [
        "images",
        "images.txt",
        "image_class_labels.txt",
        "bounding_boxes.txt",
        "train_test_split.txt",
        "classes.txt",
    ],
)
def test_a_missing_part_is_named(broken: Path, name: str) -> None:
    path = broken / "CUB_200_2011" / name
    path.rename(broken / "elsewhere")
    assert _error(broken).startswith(f"{path} does not exist; --data-root must be")


def test_half_a_dataset_names_the_first_images_and_the_count(broken: Path) -> None:
    folder = broken / "CUB_200_2011"
    shutil.rmtree(folder / "images" / CLASSES[1])
    missing = [
        line.split()[1]
        for line in (folder / "images.txt").read_text().splitlines()
        if CLASSES[1] in line
    ]
    assert _error(broken) == (
        f"{folder / 'images.txt'}:13: 12 of 36 images are not in {folder / 'images'}: "
        f"{missing[0]}, {missing[1]}, {missing[2]}, ...; unpack CUB_200_2011.tgz again"
    )


def test_a_single_missing_image_is_named(broken: Path) -> None:
    folder = broken / "CUB_200_2011"
    name = (folder / "images.txt").read_text().splitlines()[20].split()[1]
    (folder / "images" / name).unlink()
    assert _error(broken) == (
        f"{folder / 'images.txt'}:21: 1 of 36 images are not in {folder / 'images'}: {name}; "
        "unpack CUB_200_2011.tgz again"
    )


@pytest.mark.parametrize("text", ["images.txt", "image_class_labels.txt", "classes.txt"])
@pytest.mark.parametrize("line", ["x y", "7", "", "-1 3", "1.5 2"])
def test_a_malformed_line_is_named(broken: Path, text: str, line: str) -> None:
    path = _edit(broken, text, lambda lines: [lines[0], line, *lines[2:]])
    assert _error(broken) == (
        f"{path}:2: expected '<id> <value>', got '{line}'; restore it from CUB_200_2011.tgz"
    )


@pytest.mark.parametrize("text", ["images.txt", "bounding_boxes.txt", "classes.txt"])
def test_an_empty_file_is_refused(broken: Path, text: str) -> None:
    path = _edit(broken, text, lambda _: [])
    assert _error(broken) == f"{path}:1: the file is empty; restore it from CUB_200_2011.tgz"


def test_a_binary_file_is_refused(broken: Path) -> None:
    path = broken / "CUB_200_2011/images.txt"
    path.write_bytes(b"\xff\xfe\x00\x00")
    assert _error(broken) == f"{path}: not a text in UTF-8; restore it from CUB_200_2011.tgz"


@pytest.mark.parametrize(
    "text",
    [
        "images.txt",
        "image_class_labels.txt",
        "bounding_boxes.txt",
        "train_test_split.txt",
        "classes.txt",
    ],
)
def test_duplicate_ids_are_refused(broken: Path, text: str) -> None:
    path = _edit(broken, text, lambda lines: [*lines, lines[1]])
    end = len(path.read_text().splitlines())
    assert _error(broken) == (f"{path}:{end}: id 2 stands on line 2 already; remove one of them")


def test_an_image_under_two_ids_is_refused(broken: Path) -> None:
    path = _edit(broken, "images.txt", lambda lines: [*lines[:4], f"5 {lines[0][2:]}", *lines[5:]])
    name = path.read_text().splitlines()[0][2:]
    assert _error(broken) == f"{path}:5: '{name}' stands on line 1 already; remove one of them"


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/x.jpg", "a//x.jpg", "./x.jpg"])
def test_paths_that_leave_the_folder_are_refused(broken: Path, name: str) -> None:
    path = _edit(broken, "images.txt", lambda lines: [f"1 {name}", *lines[1:]])
    assert _error(broken) == (
        f"{path}:1: '{name}' is no plain path below images/; restore it from CUB_200_2011.tgz"
    )


@pytest.mark.parametrize(
    "text", ["image_class_labels.txt", "bounding_boxes.txt", "train_test_split.txt"]
)
def test_an_image_without_label_box_or_split_is_refused(broken: Path, text: str) -> None:
    _edit(broken, text, lambda lines: [*lines[:6], *lines[7:]])
    images = broken / "CUB_200_2011/images.txt"
    assert _error(broken) == f"{images}:7: image 7 has no line in {text}; add it there"


def test_a_truncated_list_of_images_is_no_smaller_dataset(broken: Path) -> None:
    _edit(broken, "images.txt", lambda lines: lines[:30])
    path = broken / "CUB_200_2011/image_class_labels.txt"
    assert _error(broken) == f"{path}:31: image 31 has no line in images.txt; add it there"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("4", "class 4 is not in classes.txt; add it there"),
        ("0", "class 0 is not in classes.txt; add it there"),
        ("a", "expected '<id> <class id>', got '9 a'; restore it from CUB_200_2011.tgz"),
        ("1 2", "expected '<id> <class id>', got '9 1 2'; restore it from CUB_200_2011.tgz"),
    ],
)
def test_a_wrong_label_is_refused(broken: Path, value: str, problem: str) -> None:
    path = _edit(
        broken, "image_class_labels.txt", lambda lines: [*lines[:8], f"9 {value}", *lines[9:]]
    )
    assert _error(broken) == f"{path}:9: {problem}"


@pytest.mark.parametrize("value", ["1 2 3", "1 2 3 4 5", "1 2 3 x", "1 2 nan 4", "1 2 inf 4"])
def test_a_malformed_box_is_refused(broken: Path, value: str) -> None:
    path = _edit(broken, "bounding_boxes.txt", lambda lines: [f"1 {value}", *lines[1:]])
    assert _error(broken) == (
        f"{path}:1: expected '<id> <x> <y> <width> <height>', got '1 {value}'; "
        "restore it from CUB_200_2011.tgz"
    )


@pytest.mark.parametrize(
    ("value", "size"),
    [("3 4 0.0 5", "0.0 x 5.0"), ("3 4 5 0", "5.0 x 0.0"), ("3 4 -1 5", "-1.0 x 5.0")],
)
def test_a_box_without_area_is_refused(broken: Path, value: str, size: str) -> None:
    path = _edit(broken, "bounding_boxes.txt", lambda lines: [*lines[:3], f"4 {value}", *lines[4:]])
    assert _error(broken) == (
        f"{path}:4: box of image 4 is {size} pixels; restore it from CUB_200_2011.tgz"
    )


@pytest.mark.parametrize("value", ["2", "train", "1 0"])
def test_a_wrong_split_is_refused(broken: Path, value: str) -> None:
    path = _edit(broken, "train_test_split.txt", lambda lines: [f"1 {value}", *lines[1:]])
    assert _error(broken) == (
        f"{path}:1: expected 1 for train or 0 for test, got '{value}'; "
        "restore it from CUB_200_2011.tgz"
    )


@given(
    position=st.integers(0, 10_000), junk=st.binary(min_size=1, max_size=4), which=st.integers(0, 4)
)
@settings(max_examples=40, deadline=None)
def test_any_damage_gives_one_line_or_the_same_images(
    tiny_cub: Path,
    tmp_path_factory: pytest.TempPathFactory,
    position: int,
    junk: bytes,
    which: int,
) -> None:
    root = tmp_path_factory.mktemp("junk")
    shutil.copytree(tiny_cub, root, dirs_exist_ok=True)
    path = sorted((root / "CUB_200_2011").glob("*.txt"))[which]
    content = path.read_bytes()
    at = position % len(content)
    path.write_bytes(content[:at] + junk + content[at + len(junk) :])
    message, count = "x.txt: fine", 36
    try:
        cub = _cub(root)
    except InputError as error:
        message = str(error)
    else:
        count = len(cub.official("train")) + len(cub.official("test"))
    assert re.fullmatch(r"\S+\.txt(:\d+)?: .+", message)
    assert count == 36
