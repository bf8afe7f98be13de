"""How much of each part the box holds, against counting pixels one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_oracle as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from scoring_maps import random_map

from wsolbench.dataset import Dataset, OfficialSplit, Sample
from wsolbench.errors import InputError
from wsolbench.metrics import functional as F
from wsolbench.metrics.scorer import Scorer
from wsolbench.protocol import Protocol, load_protocol
from wsolbench.scoring import score
from wsolbench.truth import read_truth
from wsolbench.types import Prediction, Truth

Array = NDArray[Any]

STANDARD = load_protocol("standard")
NAMES = ("beak", "wing", "tail", "foot")
FRAME = 224
_PARTS = arrays(np.uint8, (9, 9), elements=st.sampled_from([0, 0, 1, 2, 3]))
_CORNER = st.floats(-3, 12) | st.integers(-3, 12) | st.sampled_from([np.nan, np.inf, -np.inf])


@settings(max_examples=200, deadline=None)
@given(_PARTS, arrays(np.float64, (5, 4), elements=_CORNER))
def test_coverage_is_what_counting_gives(parts: Array, boxes: Array) -> None:
    shares = F.part_coverage(parts, boxes, 4)
    assert shares.shape == (4, 5)
    for part, row in enumerate(shares, start=1):
        if not (parts == part).any():
            assert np.isnan(row).all()
            continue
        expected = [oracle.part_share(parts == part, box) for box in boxes]
        np.testing.assert_allclose(row, expected, rtol=1e-12)


def _images(count: int) -> list[tuple[Truth, Array]]:
    """Truths and maps; each image lacks a part, nobody has a foot, resolutions differ."""
    rng = np.random.default_rng(3)
    images = []
    for i, kind in enumerate(["smooth", "ripple", "plateaus", "lines", "constant"] * count):
        height, width = ((56, 112), (FRAME, FRAME))[i % 2]
        parts = (4 * random_map("smooth", rng, height, width)).astype(np.uint8) % 4
        parts[parts == 1 + i % 3] = 0
        box = np.array([[20.0, 10, 90, 50]])
        truth = Truth(0, (112, 56), box, parts=parts)
        images.append((truth, random_map(kind, rng, 14, 14)))
    return images[:count]


def _plain(images: Sequence[tuple[Truth, Array]], threshold: float) -> dict[str, float]:
    """Percentage of each part in the box of largest contour, image by image."""
    shares: dict[str, list[float]] = {}
    for truth, native in images:
        assert truth.parts is not None
        levels = F.protocol_map(native, STANDARD)[1]
        found = oracle.contours(levels > int(threshold * int(levels.max())))
        largest = np.array([oracle.largest_contour_box(found) or [0, 0, 0, 0]])
        box = oracle.clipped(largest, levels.shape)[0]
        rows, columns = (FRAME // side for side in truth.parts.shape)
        parts = truth.parts.repeat(rows, axis=0).repeat(columns, axis=1)
        for part, name in enumerate(NAMES, start=1):
            if (parts == part).any():
                share = oracle.part_share(parts == part, box)
                shares.setdefault(f"part_coverage_{name}", []).append(share)
    return {name: 100 * float(np.mean(values)) for name, values in shares.items()}


def _scored(images: Sequence[tuple[Truth, Array]], protocol: Protocol = STANDARD) -> Scorer:
    scorer = Scorer(protocol, part_names=NAMES)
    for truth, native in images:
        scorer.update([truth], Prediction(maps=torch.from_numpy(native)[None]))
    return scorer


def test_the_figure_is_the_mean_over_images_and_then_over_parts() -> None:
    images = _images(7)
    scores = _scored(images).compute(0.3)
    for index in range(0, 1000, 90):
        expected = _plain(images, index / 1000)
        assert set(expected) == {f"part_coverage_{name}" for name in NAMES[:3]}
        expected["part_coverage"] = float(np.mean(list(expected.values())))
        found = {name: c[index] for name, c in scores.curves.items() if name.startswith("part_")}
        assert found == pytest.approx(expected, abs=1e-9)
    at_threshold = float(np.mean(list(_plain(images, 0.3).values())))
    assert scores.figures["part_coverage"] == pytest.approx(at_threshold, abs=1e-9)
    assert len({round(value, 3) for value in scores.curves["part_coverage"]}) > 20


def test_neither_order_nor_split_changes_a_digit() -> None:
    images = _images(9)
    whole, parts = _scored(images), [_scored(images[i::2][::-1]) for i in (1, 0)]
    parts[0].merge_state(parts[1])
    assert parts[0].compute(0.3) == whole.compute(0.3)


def test_a_box_of_the_whole_frame_holds_everything_and_an_empty_one_a_pixel() -> None:
    parts = np.zeros((FRAME, FRAME), np.uint8)
    parts[0, 0], parts[0, 1], parts[-1, -1] = 1, 2, 3
    truth = Truth(0, (FRAME, FRAME), np.array([[10.0, 10, 90, 90]]), parts=parts)
    whole = np.full((FRAME, FRAME), 0.5)
    whole[0, 0] = 0
    levels = F.protocol_map(whole, STANDARD)[1]
    box = F.largest_boxes(levels, np.array([0.001]), STANDARD.box)
    assert box.tolist() == [[0, 0, FRAME - 1, FRAME - 1]]
    scores = _scored([(truth, whole)]).compute(0.001)
    assert [scores.curves[f"part_coverage_{name}"][1] for name in NAMES[:3]] == [100] * 3
    assert scores.figures["part_coverage"] == 100
    dead = _scored([(truth, np.zeros((3, 3)))]).compute(0.5)
    assert [dead.curves[f"part_coverage_{name}"][500] for name in NAMES[:3]] == [100, 0, 0]


def test_given_boxes_are_brought_to_the_frame_first() -> None:
    parts = np.zeros((FRAME, FRAME), np.uint8)
    parts[50, 40:60] = 2
    truth = Truth(0, (FRAME, FRAME), np.array([[10.0, 10, 90, 90]]), parts=parts)
    scorer = Scorer(STANDARD, input_size=448, part_names=NAMES)
    # In the frame from 45.5: of the pixels 40 to 59 the last 14 are inside.
    scorer.update([truth], Prediction(boxes=torch.tensor([[91.0, 60, 300, 300]])))
    scores = scorer.compute(0.7)
    assert scores.curves["part_coverage_wing"] == pytest.approx([70.0] * 1000)
    assert scores.figures["part_coverage"] == pytest.approx(70)


def test_other_protocols_leave_parts_alone() -> None:
    for name in ("wsoleval", "sat", "ts-cam"):
        scores = _scored(_images(2), load_protocol(name)).compute()
        assert not [c for c in (*scores.curves, *scores.figures) if c.startswith("part_")]


def test_a_crop_has_no_part_coverage() -> None:
    fields = {**load_protocol("sat").model_dump(), "figures": ("gt_known_loc", "part_coverage")}
    with pytest.raises(ValueError, match="part_coverage needs direct geometry"):
        Protocol.model_validate({**fields, "oracle": ()})


# ------------------------------------------------------------------------------------- files


class _Birds(Dataset):
    title, layout, part_names = "Birds", "", NAMES[:2]

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__(Path(), holdout=1)
        self._samples = samples

    @property
    def class_names(self) -> tuple[str, ...]:
        return ("bird",)

    def official(self, split: OfficialSplit) -> Sequence[Sample]:
        return self._samples


def _files(tmp_path: Path, parts: Image.Image, count: int = 1) -> list[Sample]:
    parts.save(tmp_path / "parts.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "image.png")
    box = (10.0, 10.0, 40.0, 40.0)
    return [
        Sample(f"{i}", tmp_path / "image.png", 0, (box,), parts=tmp_path / "parts.png")
        for i in range(count)
    ]


def _values() -> Array:
    values = np.zeros((48, 64), np.uint8)
    values[5:9, 3:7], values[20:30, 30:50] = 1, 2
    return values


@pytest.mark.parametrize("palette", [False, True])
def test_parts_are_read_as_the_numbers_in_the_file(tmp_path: Path, palette: bool) -> None:
    image = Image.fromarray(_values())
    if palette:
        image.putpalette([200, 10, 10, 0, 0, 0, 9, 9, 9])
        assert image.mode == "P"
    (sample,) = _files(tmp_path, image)
    truth = read_truth(sample, 2)
    assert truth.parts is not None
    np.testing.assert_array_equal(truth.parts, _values())


def test_parts_reach_the_figures_and_no_training_sample(tmp_path: Path) -> None:
    dataset = _Birds(_files(tmp_path, Image.fromarray(_values()), count=3))
    assert [s.parts for s in dataset.samples("train")] == [None, None]
    assert dataset.samples("val")[0].parts is not None
    samples = dataset.samples("test")
    stream = [((s.image_id,), Prediction(maps=torch.rand(1, 5, 5))) for s in samples]
    (scorer,) = score(stream, samples, [STANDARD], part_names=dataset.part_names)
    names = {"part_coverage", "part_coverage_beak", "part_coverage_wing"}
    assert names < set(scorer.compute(0.3).curves)


def test_parts_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (sample,) = _files(tmp_path, Image.fromarray(_values()))
    with pytest.raises(InputError, match=r"parts\.png has a part 2 and the dataset names 1"):
        read_truth(sample, 1)
    _files(tmp_path, Image.fromarray(_values()).convert("RGB"))
    with pytest.raises(InputError, match=r"parts\.png .*mode RGB: indices must be 8-bit"):
        read_truth(sample, 2)
    assert sample.parts is not None
    sample.parts.write_bytes(sample.path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"parts\.png cannot be decoded"):
        read_truth(sample, 2)
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        read_truth(replace(sample, parts=tmp_path / "gone.png"), 2)
