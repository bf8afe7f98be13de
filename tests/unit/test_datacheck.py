"""`check-data` finds what is wrong, says where, and calls right what is right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done, call
from miniatures import make_folder, write
from PIL import Image

from wsolbench.dataset import Facts
from wsolbench.registry import DATASETS

OWN = Facts(classes=3, train=12, test=6, test_boxes=6, past_edge=0)


def check(name: str, root: Path) -> Done:
    return call("check-data", name, "--data-root", root)


def faults(done: Done) -> list[str]:
    return [line[7:] for line in done.out.splitlines() if line.startswith("fault")]


def test_what_is_right(tmp_path: Path) -> None:
    done = check("folder", make_folder(tmp_path))
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[0].startswith("good   all annotation files were read; fingerprint ")
    assert "good   12 training images" in lines
    assert "note   the folder val is not there: hold-outs are taken from training images" in lines
    assert "good   images that are in two splits, byte by byte: none" in lines


def test_known_figures_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS.get("folder"), "facts", OWN)
    done = check("folder", make_folder(tmp_path))
    assert done.code == 0
    assert "good   12 training images, as distributed" in done.out
    (tmp_path / "train/ant/0.jpg").unlink()
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    write(tmp_path / "boxes.csv", [line for line in lines if "train/ant/0" not in line])
    done = check("folder", tmp_path)
    assert done.code == 1
    assert faults(done) == ["11 training images, the whole distribution has 12"]


def _cut(root: Path) -> None:
    file = root / "test/bee/1.jpg"
    file.write_bytes(file.read_bytes()[:700])


def _same(root: Path) -> None:
    shutil.copy(root / "train/ant/0.jpg", root / "test/bee/0.jpg")


def _far(root: Path) -> None:
    text = (root / "boxes.csv").read_text()
    (root / "boxes.csv").write_text(text + "test/ant/0.jpg,60,60,70,70\n")


def _unreadable(root: Path) -> None:
    (root / "boxes.csv").write_text("image,x0\n")


def _two_classes(root: Path) -> None:
    shutil.copy(root / "train/ant/0.jpg", root / "train/bee/0.jpg")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut, "files that do not decode, of 18 images: 1 (image "),
        (_same, "images that are in two splits, byte by byte: 1 (train: train/ant/0.jpg = test: "),
        (_far, "boxes without area or outside of their image: 1 (test/ant/0.jpg (60.0, 60.0,"),
        (_unreadable, "boxes.csv:1: expected the header image,x0,y0,x1,y1"),
        (_two_classes, "images of one split under two classes: 1 (train/ant/0.jpg = train/bee/0."),
    ],
)
def test_a_fault_is_found(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    change(make_folder(tmp_path))
    done = check("folder", tmp_path)
    assert done.code == 1
    (fault,) = faults(done)
    assert said in fault


def test_duplicates_of_the_distribution_are_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _same(make_folder(tmp_path))
    monkeypatch.setattr(DATASETS.get("folder"), "facts", OWN)
    done = check("folder", tmp_path)
    assert done.code == 0
    assert "note   images that are in two splits, byte by byte: 1 (" in done.out


def test_boxes_past_the_edge_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path)
    lines = (tmp_path / "boxes.csv").read_text().splitlines()
    write(tmp_path / "boxes.csv", [*lines[:-1], "test/cow/1.jpg,5,5,49,40"])
    done = check("folder", tmp_path)
    assert done.code == 0
    assert "note   boxes that reach past their image: 1 (test/cow/1.jpg)" in done.out
    monkeypatch.setattr(DATASETS.get("folder"), "facts", OWN)
    assert faults(check("folder", tmp_path)) == [
        "boxes that reach past their image: 1 (test/cow/1.jpg); the distribution has 0"
    ]


def test_it_reads_what_runs_need_not(tiny_ilsvrc: Path, tmp_path: Path) -> None:
    """A wrong train box, an order of labels and a layout that nobody has seen."""
    root = tmp_path / "data"
    shutil.copytree(tiny_ilsvrc, root)
    xml = next((root / "ILSVRC/bbox_train/n01443537").iterdir())
    xml.write_text(xml.read_text().replace("<xmin>", "<xmin>x"))
    done = check("ilsvrc", root)
    assert done.code == 1
    found = faults(done)
    assert "3 classes, the whole distribution has 1000" in found
    assert "label order is not the one in use" in found
    assert any(
        f"wrong files among 12 with boxes of training images: 1 ({xml}:10" in f for f in found
    )
    assert done.out.startswith("note   layout not seen by the authors")


def test_the_kept_index_is_not_believed(tmp_path: Path) -> None:
    make_folder(tmp_path)
    assert check("folder", tmp_path).code == 0
    file = tmp_path / "boxes.csv"
    stamp, folder = file.stat(), tmp_path.stat()
    file.write_text(file.read_text().replace("image,x0", "image,X0"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    os.utime(tmp_path, ns=(folder.st_atime_ns, folder.st_mtime_ns))
    assert check("folder", tmp_path).code == 1


def test_masks_are_decoded(tiny_oxford_pet: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_oxford_pet, root)
    image = root / "oxford-iiit-pet/images/Bengal_1.jpg"
    with Image.open(image) as found:
        found.convert("CMYK").save(image)  # legal
    assert "files that do not decode, of 18 images: none" in check("oxford-pet", root).out
    mask = root / "oxford-iiit-pet/annotations/trimaps/Bengal_1.png"
    mask.write_bytes(mask.read_bytes()[:60])
    done = check("oxford-pet", root)
    assert any("Bengal_1.png" in fault for fault in faults(done))
