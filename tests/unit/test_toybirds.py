"""Toybirds: that what is said of a picture is what it shows, and that it is drawn once, whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsolbench.data.images import read_image
from wsolbench.dataset import Dataset, OfficialSplit
from wsolbench.errors import InputError
from wsolbench.files import make_folder
from wsolbench.metrics.scorer import Scorer
from wsolbench.protocol import load_protocol
from wsolbench.registry import DATASETS
from wsolbench.synthetic.birds import SPECIES
from wsolbench.synthetic.scene import SIDE
from wsolbench.truth import read_truth
from wsolbench.types import Prediction

#: fingerprints of the pictures that :func:`few` draws; see the digest in ``test_synthetic.py``
VARIANTS = {
    "toybirds": "e6d842324219",
    "toybirds-small": "eaf662fed832",
    "toybirds-context": "23338559d751",
    "toybirds-flock": "e0b7f78259a3",
    "toybirds-covered": "8da4530cd9d1",
}
COUNT = len(SPECIES)


def few(name: str, train: int = 2, test: int = 1) -> type[Dataset]:
    """A variant with that many pictures a species."""
    sizes: Mapping[OfficialSplit, int] = {"train": train, "test": test}
    return type("Few", (DATASETS.get(name),), {"per_class": sizes})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root in which every variant has been drawn; not to be written to."""
    folder = tmp_path_factory.mktemp("data")
    for name in VARIANTS:
        few(name)(folder)
    return folder


def _bounds(mask: NDArray[np.bool_]) -> list[int]:
    y, x = np.nonzero(mask)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


@pytest.mark.parametrize("name", VARIANTS)
def test_boxes_masks_and_parts_say_the_same(root: Path, name: str) -> None:
    dataset = few(name)(root)
    fewest, most = (2, 4) if name == "toybirds-flock" else (1, 1)
    shown: set[int] = set()
    for split, count in (("train", 2), ("test", 1)):
        samples = dataset.official(split)  # type: ignore[arg-type]
        assert Counter(s.label for s in samples) == dict.fromkeys(range(COUNT), count)
        for sample in samples:
            truth = read_truth(sample, len(dataset.part_names))
            assert truth.size == (SIDE, SIDE)
            assert fewest <= len(truth.boxes) == len(truth.instance_masks) <= most
            bounds = [_bounds(mask) for mask in truth.instance_masks]
            np.testing.assert_array_equal(truth.boxes, bounds)
            assert sum(int(mask.sum()) for mask in truth.instance_masks) > 100
            together = np.sum(truth.instance_masks, axis=0)
            assert together.max() == 1  # no pixel shows two birds
            assert truth.parts is not None
            np.testing.assert_array_equal(truth.parts > 0, together == 1)
            shown |= set(np.unique(truth.parts).tolist())
    assert shown == set(range(len(dataset.part_names) + 1))


def test_the_picture_shows_the_bird_where_the_mask_says(root: Path) -> None:
    # Of two pictures of one seed, those with smaller features differ within the birds only.
    usual, small = (few(name)(root).official("train") for name in ("toybirds", "toybirds-small"))
    differing = 0
    for one, other in zip(usual, small, strict=True):
        changed = (read_image(one.path) != read_image(other.path)).any(axis=2)
        masks = [read_truth(s, 7).instance_masks[0] for s in (one, other)]
        assert not (changed & ~(masks[0] | masks[1])).any()
        differing += int(changed.sum())
    assert differing > 1000


def test_class_names_are_unique_and_say_the_features(root: Path) -> None:
    names = few("toybirds")(root).class_names
    assert len(set(names)) == COUNT
    assert names[0] == "belly, forked tail, no crest, round wing"


def test_a_map_of_the_mask_is_perfect(root: Path) -> None:
    dataset = few("toybirds")(root)
    scorer = Scorer(load_protocol("standard"), part_names=dataset.part_names)
    for sample in dataset.official("test"):
        truth = read_truth(sample, len(dataset.part_names))
        score_map = torch.from_numpy(truth.instance_masks[0].astype(np.float32))
        scorer.update([truth], Prediction(maps=score_map[None]))
    figures = scorer.compute(0.5).figures
    assert figures["gt_known_loc"] == figures["max_box_acc_v2"] == 100
    assert figures["part_coverage"] > 99.5
    assert figures["pxap"] > 99


# --------------------------------------------------------------------------------- the folder


def _stamps(folder: Path) -> dict[str, int]:
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*.*")}


def test_it_is_drawn_once_and_alike_everywhere(tmp_path: Path, root: Path) -> None:
    tiny = few("toybirds-flock", 1, 1)
    first = tiny(tmp_path / "a")
    stamps = _stamps(tmp_path / "a")
    again, elsewhere = tiny(tmp_path / "a"), tiny(tmp_path / "b" / "c")
    assert _stamps(tmp_path / "a") == stamps
    assert first.fingerprint() == again.fingerprint() == elsewhere.fingerprint()
    assert not list(tmp_path.rglob(".*"))
    for one, other in zip(first.official("test"), elsewhere.official("test"), strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
    # Another number of pictures is another dataset, and the first ones are the same.
    assert few("toybirds-flock")(root).fingerprint() != first.fingerprint()
    longer = few("toybirds-flock")(root).official("train")
    for one, other in zip(first.official("train"), longer, strict=False):
        assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_pictures_are_frozen(root: Path, name: str) -> None:
    assert few(name)(root).fingerprint() == VARIANTS[name]


def test_the_fingerprint_covers_the_pixels(tmp_path: Path) -> None:
    tiny = few("toybirds", 1, 1)
    before = tiny(tmp_path).fingerprint()
    (index,) = tmp_path.rglob("index.json")
    content = json.loads(index.read_text("utf-8"))
    content["pixels"] = "of other pictures"
    index.write_text(json.dumps(content), "utf-8")
    assert tiny(tmp_path).fingerprint() != before


def test_a_drawing_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = few("toybirds", 1, 1)
    real, calls = Path.write_text, []

    def full(self: Path, *arguments: Any, **named: Any) -> int:
        calls.append(self)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Exception, match="No space left on device; make room and run again"):
        tiny(tmp_path)
    assert calls
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == []
    monkeypatch.setattr(Path, "write_text", real)
    assert len(tiny(tmp_path).official("test")) == COUNT


def test_a_place_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(InputError, match="is a file, not a folder"):
        few("toybirds")(tmp_path / "data")


def test_what_is_damaged_or_gone_is_named(tmp_path: Path) -> None:
    tiny = few("toybirds", 1, 1)
    sample = tiny(tmp_path).official("test")[3]
    sample.instance_masks[0].unlink()
    with pytest.raises(InputError, match=r"1 files such as .*0003-bird0.png are gone; delete "):
        tiny(tmp_path)
    (index,) = tmp_path.rglob("index.json")
    for text in (
        "{",
        "[]",
        '{"pixels": "", "train": []}',
        '{"pixels": "", "train": [{"id": 3}]}',
        "{}",
    ):
        index.write_text(text, "utf-8")
        with pytest.raises(InputError, match=r"index\.json is damaged; delete "):
            tiny(tmp_path)


def test_a_folder_that_another_process_made_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "made"

    def overtaken(temporary: Path) -> None:
        (temporary / "mine").touch()
        folder.mkdir()
        (folder / "theirs").touch()

    make_folder(folder, overtaken)
    assert [f.name for f in tmp_path.rglob("*")] == ["made", "theirs"]
