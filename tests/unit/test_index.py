"""What was read is kept, taken again while nothing changed, and made anew when anything did."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniatures import make_folder, make_ilsvrc

from wsolbench.dataset import Dataset, digest_of, holdout_ids
from wsolbench.index import IndexedDataset, index_file, labels_of
from wsolbench.registry import DATASETS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def reads(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the files are read at an opening."""
    cls, count = DATASETS.get(name), 0
    read = cls.read  # type: ignore[attr-defined]

    def counted(self: Dataset) -> object:
        nonlocal count
        count += 1
        return read(self)

    with monkeypatch.context() as patch:
        patch.setattr(cls, "read", counted)
        cls(root)
    return count


def _append_box(root: Path) -> None:
    with (root / "boxes.csv").open("a") as file:
        file.write("test/ant/0.jpg,1,1,5,5\n")


def _same_size(root: Path) -> None:
    file = root / "boxes.csv"
    text, stamp = file.read_text(), file.stat()
    file.write_text(text[:-2] + ("1" if text[-2] != "1" else "2") + "\n")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))


def _damaged(root: Path) -> None:
    file = index_file(root, "folder")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _of_another_key(root: Path) -> None:
    other = root / "other"
    make_folder(other)
    DATASETS.get("folder")(other)
    shutil.copy(index_file(other, "folder"), index_file(root, "folder"))
    shutil.rmtree(other)


def _emptied(root: Path) -> None:
    index_file(root, "folder").write_bytes(b"")


@pytest.mark.parametrize("change", [_append_box, _same_size, _damaged, _of_another_key, _emptied])
def test_a_change_is_seen(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    assert reads("folder", root, monkeypatch) == 1
    assert reads("folder", root, monkeypatch) == 0
    change(root)
    assert reads("folder", root, monkeypatch) == 1
    assert reads("folder", root, monkeypatch) == 0


def test_new_images_and_new_code_are_seen(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = DATASETS.get("folder")(root)
    shutil.copy(root / "train/ant/0.jpg", root / "train/ant/9.jpg")
    after = DATASETS.get("folder")(root)
    assert len(after.samples("train")) == len(before.samples("train")) + 1
    (root / "train/ant/9.jpg").unlink()
    assert DATASETS.get("folder")(root).fingerprint() == before.fingerprint()
    monkeypatch.setattr("wsolbench.index._code", lambda _: "another")
    assert reads("folder", root, monkeypatch) == 1


def test_a_file_of_val_that_is_written_over_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ilsvrc(tmp_path)
    before = DATASETS.get("ilsvrc")(tmp_path).samples("test")[0]
    xml = tmp_path / f"ILSVRC/bbox_val/{before.path.stem}.xml"
    xml.write_text(xml.read_text().replace("<xmax>9<", "<xmax>8<"))
    after = DATASETS.get("ilsvrc")(tmp_path).samples("test")[0]
    assert after.boxes[1] == (0, 0, 8, 9)


def test_what_cannot_be_kept_is_read_every_time(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (root / ".wsolbench").touch()
    assert reads("folder", root, monkeypatch) == 1
    assert reads("folder", root, monkeypatch) == 1
    assert "what was read is not kept, every start will read it again" in caplog.text


@pytest.mark.parametrize("holdout", [0, 1, 3])
def test_columns_say_what_lists_say(root: Path, holdout: int) -> None:
    """Hold-out, labels, order and fingerprint are those of a dataset without an index."""
    data = DATASETS.get("folder")(root, holdout)
    assert isinstance(data, IndexedDataset)
    official = list(data.official("train"))
    held = holdout_ids(official, holdout)
    assert [s.image_id for s in data.samples("train")] == [
        s.image_id for s in official if s.image_id not in held
    ]
    assert list(data.samples("val")) == [s for s in official if s.image_id in held]
    splits = {"train": official, "test": list(data.official("test"))}
    assert data.fingerprint() == digest_of(splits)[:12]  # type: ignore[arg-type]
    train = data.samples("train")
    assert labels_of(train).tolist() == [s.label for s in train] == labels_of(list(train)).tolist()
    assert [train[i] for i in range(len(train))] == list(train)
    assert train[-1] == list(train)[-1]
    assert list(train[1:7:2]) == list(train)[1:7:2]
    assert train[np.int64(2)] == list(train)[2]  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        train[len(train)]
    assert list(pickle.loads(pickle.dumps(train))) == list(train)
