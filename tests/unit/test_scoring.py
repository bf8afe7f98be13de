"""The scorer and the streams it is fed with."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from wsolbench.arrays import pack
from wsolbench.dataset import Sample
from wsolbench.errors import InputError
from wsolbench.metrics.scorer import Scorer, Scores
from wsolbench.protocol import load_protocol
from wsolbench.scoring import save_predictions, saved_predictions, score
from wsolbench.truth import read_truth
from wsolbench.types import Prediction, Truth

STANDARD = load_protocol("standard")
SIDE = 224
PARTS = ("beak", "wing", "tail")
Batches = list[tuple[tuple[str, ...], Prediction]]


def _truth(label: int = 0, box: Sequence[float] = (50, 50, 150, 150), masks: Any = ()) -> Truth:
    return Truth(label, (SIDE, SIDE), np.array([box], dtype=np.float64), masks)


def _disc(radius: float) -> Tensor:
    """A cone around the centre (100, 100) that is zero from ``radius`` on."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return (1 - torch.hypot(x - 100.0, y - 100.0) / radius).clamp(min=0)


def _images(n: int, seed: int = 0) -> list[tuple[Truth, Prediction]]:
    """Images with two masks, a part or two and logits of five classes each."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for i in range(n):
        native = torch.rand(1, 5, 5, generator=generator)
        mask = np.zeros((30, 40), dtype=np.bool_)
        mask[5 + i : 20, 10:30] = True
        logits = torch.rand(1, 5, generator=generator)
        truth = _truth(i % 5, (40, 30 + i, 150, 160), (mask, mask.T))
        parts = np.uint8(mask) + np.uint8(i % 3) * np.roll(mask, 3, axis=1)
        images.append((replace(truth, parts=parts), Prediction(maps=native, logits=logits)))
    return images


def _scored(images: Sequence[tuple[Truth, Prediction]], protocol: Any = STANDARD) -> Scorer:
    scorer = Scorer(protocol, part_names=PARTS)
    for truth, prediction in images:
        scorer.update([truth], prediction)
    return scorer


# -------------------------------------------------------------------------- figures, thresholds


def test_the_threshold_is_chosen_on_other_images_and_carried() -> None:
    held_out = _scored([(_truth(), Prediction(maps=_disc(100)[None]))])
    chosen = held_out.select_threshold()
    on_itself = held_out.compute(chosen)
    right = np.array(on_itself.curves["box_acc_50"]) == 100
    start, end = np.flatnonzero(right)[[0, -1]]
    assert chosen == pytest.approx(((start + end) // 2) / 1000)
    assert on_itself.figures["gt_known_loc"] == 100

    # The other map is so much wider that a threshold of its own would have to be higher.
    test = _scored([(_truth(), Prediction(maps=_disc(400)[None]))]).compute(chosen)
    assert test.threshold == chosen
    assert test.figures["max_box_acc"] == 100
    assert test.figures["gt_known_loc"] == 0


def test_no_threshold_no_figure() -> None:
    scorer = _scored(_images(2))
    with pytest.raises(InputError, match="--set holdout"):
        scorer.compute()
    with pytest.raises(InputError, match=r"0\.12345 is none of those"):
        scorer.compute(0.12345)
    with pytest.raises(InputError, match="--set holdout"):
        Scorer(STANDARD).select_threshold()
    with pytest.raises(InputError, match="no image"):
        Scorer(STANDARD).compute()
    for name in ("sat", "ts-cam", "wsoleval"):
        own = _scored(_images(2), load_protocol(name))
        assert own.select_threshold() is None
        with pytest.raises(InputError, match="takes no threshold"):
            own.compute(0.35)


def test_a_second_threshold_is_not_answered_from_a_cache() -> None:
    scorer = _scored(_images(3))
    assert scorer.compute(0.1).threshold == pytest.approx(0.1)
    assert scorer.compute(0.2).threshold == pytest.approx(0.2)


def test_figures_that_cannot_be_computed_are_absent() -> None:
    images = [(t, Prediction(maps=p.maps)) for t, p in _images(2)]
    scores = _scored(images).compute(0.3)
    of_boxes = ["gt_known_loc", "max_box_acc", "max_box_acc_v2"]
    assert list(scores.figures) == [*of_boxes, "pxap", "part_coverage"]
    assert "top1_loc" not in scores.curves
    assert list(_scored([(_truth(), images[0][1])]).compute(0.3).figures) == of_boxes
    boxless = [(replace(t, boxes=np.empty((0, 4))), p) for t, p in _images(2)]
    scorer = _scored(boxless)
    assert scorer.select_threshold() is None
    scores = scorer.compute()
    assert list(scores.figures) == ["pxap", "top1_cls", "top5_cls"]
    assert scores.threshold is None
    classes = _scored([(t, Prediction(logits=p.logits)) for t, p in _images(2)]).compute()
    assert list(classes.figures) == ["top1_cls", "top5_cls"]
    assert classes.figures["top5_cls"] == 100


def test_part_of_the_images_without_logits_is_an_error() -> None:
    images = _images(3)
    images[1] = (images[1][0], Prediction(maps=images[1][1].maps))
    with pytest.raises(InputError, match="1 of 3 images have no logits"):
        _scored(images).compute(0.3)


def test_part_of_the_images_without_parts_is_an_error() -> None:
    images = _images(3)
    images[1] = (replace(images[1][0], parts=None), images[1][1])
    with pytest.raises(InputError, match="1 of 3 images have no masks of parts"):
        _scored(images).compute(0.3)


def test_top_k_localisation_needs_class_and_box() -> None:
    hit = Prediction(maps=_disc(70)[None], logits=torch.tensor([[3.0, 2, 1, 0, -1, -2]]))
    labels = (0, 1, 5)
    scores = _scored([(_truth(label), hit) for label in labels]).compute(0.001)
    third = pytest.approx(100 / 3)
    assert scores.figures["gt_known_loc"] == 100
    assert scores.figures["top1_loc"] == scores.figures["top1_cls"] == third
    assert scores.figures["top5_loc"] == scores.figures["top5_cls"] == pytest.approx(200 / 3)
    missed = [(_truth(0, (0, 0, 5, 5)), hit)]
    assert _scored(missed).compute(0.001).figures["top1_loc"] == 0
    with pytest.raises(InputError, match="class 7"):
        _scored([(_truth(7), hit)])


def test_dead_maps_are_counted_and_answered_as_the_protocol_says() -> None:
    maps = torch.rand(4, 6, 6)
    maps[0], maps[1, 2, 2], maps[2, 0, 0] = 0.1, float("nan"), float("inf")
    whole = _truth(box=(0, 0, SIDE, SIDE))
    for name, hits in (("sat", 3), ("ts-cam", 0), ("standard", 0)):
        scorer = Scorer(load_protocol(name))
        scorer.update([whole] * 3, Prediction(maps=maps[:3]))
        scores = scorer.compute(0.5 if name == "standard" else None)
        assert scores.dead_maps == 3
        assert scores.figures["gt_known_loc"] == pytest.approx(100 * hits / 3)
    assert _scored([(whole, Prediction(maps=maps[3:]))]).compute(0.5).dead_maps == 0


def test_given_boxes_are_scaled_from_the_input_and_hold_at_every_threshold() -> None:
    scorer = Scorer(STANDARD, input_size=448)
    scorer.update(
        [_truth(), _truth()], Prediction(boxes=torch.tensor([[100.0, 100, 300, 300]] * 2))
    )
    scores = scorer.compute(scorer.select_threshold())
    assert set(scores.curves["box_acc_70"]) == set(scores.curves["box_acc_v2_70"]) == {100.0}
    assert scores.figures["max_box_acc_v2"] == scores.figures["gt_known_loc"] == 100
    assert scores.dead_maps == 0
    unscaled = Scorer(STANDARD)
    unscaled.update([_truth()], Prediction(boxes=torch.tensor([[100.0, 100, 300, 300]])))
    assert unscaled.compute(0.5).figures["gt_known_loc"] == 0


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (Prediction(maps=torch.rand(2, 4, 4)), r"\(2, 4, 4\) as maps"),
        (Prediction(maps=torch.rand(1, 1, 4, 4)), r"maps \(B, h, w\)"),
        (Prediction(logits=torch.rand(5)), r"logits \(B, K\)"),
        (Prediction(maps=torch.rand(1, 4, 4), boxes=torch.rand(1, 4)), "not both"),
    ],
)
def test_predictions_that_do_not_fit(prediction: Prediction, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Scorer(STANDARD).update([_truth()], prediction)


# ---------------------------------------------------------------------- merging across processes


def test_parts_merge_to_the_whole_in_any_order() -> None:
    images = _images(7)
    whole = _scored(images)
    parts = [pickle.loads(pickle.dumps(_scored(images[i::2]))) for i in (1, 0)]
    parts[0].merge_state(parts[1])
    assert parts[0].select_threshold() == whole.select_threshold()
    assert parts[0].compute(0.25) == whole.compute(0.25)


_Seen = tuple[float | None, Scores, Scores, Scores]


def _rank(rank: int, store: str, samples: list[Sample]) -> _Seen:
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    scorer = _scored(_images(3) if rank == 0 else [])  # the second rank got no image
    stream = [batch for i, batch in enumerate(_one_by_one(samples)) if i % 2 == rank]
    (part,) = score(stream, samples[rank::2], [STANDARD], threads=2)
    seen = scorer.select_threshold(), scorer.compute(0.25), scorer.compute(0.5), part.compute(0.2)
    dist.destroy_process_group()
    return seen


def test_ranks_agree_even_where_one_has_no_image(tmp_path: Path, samples: list[Sample]) -> None:
    store = (tmp_path / "store").as_uri()
    with get_context("spawn").Pool(2) as pool:
        ranks = [(rank, store, samples) for rank in range(2)]
        seen = pool.starmap_async(_rank, ranks, chunksize=1).get(timeout=120)
    whole, parted = _scored(_images(3)), _figures(_one_by_one(samples), samples)
    expected = whole.select_threshold(), whole.compute(0.25), whole.compute(0.5), parted
    assert seen == [expected] * 2


# ------------------------------------------------------------------------------ streams and files


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    made = []
    for i in range(3):
        path = tmp_path / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(path)
        made.append(Sample(f"birds/{i}", path, i, ((5.0, 6.0, 40.0, 30.5),)))
    return made


def _stream(samples: Sequence[Sample], logits: bool = True) -> Batches:
    maps = torch.rand(len(samples), 6, 6, generator=torch.Generator().manual_seed(1))
    rows = torch.eye(len(samples)) if logits else None
    whole = Prediction(maps=maps.bfloat16(), logits=rows)
    return [(tuple(s.image_id for s in samples), whole)]


def _one_by_one(samples: Sequence[Sample]) -> Batches:
    (ids, whole) = _stream(samples)[0]
    assert whole.maps is not None
    assert whole.logits is not None
    rows = zip(ids, whole.maps.split(1), whole.logits.split(1), strict=True)
    return [((name,), Prediction(maps=maps, logits=logits)) for name, maps, logits in rows]


def _figures(stream: Any, samples: Sequence[Sample]) -> Scores:
    return score(stream, samples, [STANDARD])[0].compute(0.2)


@pytest.mark.parametrize("logits", [True, False])
def test_saved_is_live(tmp_path: Path, samples: list[Sample], logits: bool) -> None:
    folder = tmp_path / "maps"
    stale = save_predictions(_stream(samples), folder)
    list(stale)
    live = _figures(save_predictions(_stream(samples[::-1], logits), folder), samples)
    assert _figures(saved_predictions(folder, samples), samples) == live
    assert ("top1_cls" in live.figures) == logits
    saved = np.load(folder / "birds" / "0.npy")
    assert (saved.shape, saved.dtype) == ((6, 6), np.float32)
    files = sorted(p.name for p in folder.rglob("*") if p.is_file())
    assert files == ["0.npy", "1.npy", "2.npy"] + ["logits.npz"] * logits


def test_every_image_must_come_once(samples: list[Sample]) -> None:
    with pytest.raises(InputError, match=r"'birds/1' \(2 missing in all\)"):
        score(_stream(samples[:1]), samples, [STANDARD])
    with pytest.raises(InputError, match="'birds/2' is not in the split"):
        score(_stream(samples), samples[:2], [STANDARD])
    with pytest.raises(InputError, match="'birds/0' came twice"):
        score(_stream(samples) + _stream(samples), samples, [STANDARD])


def test_saved_predictions_say_what_is_wrong(tmp_path: Path, samples: list[Sample]) -> None:
    folder = tmp_path / "maps"
    list(save_predictions(_stream(samples), folder))
    file, logits = folder / "birds" / "1.npy", folder / "logits.npz"

    def fails(words: str) -> None:
        with pytest.raises(InputError, match=words):
            list(saved_predictions(folder, samples))

    for bad, words in (
        (np.zeros((1, 4, 4)), r"1\.npy must hold one map .*\(1, 4, 4\)"),
        (np.zeros((4, 4), int), "1.npy must hold floating-point numbers, not int64"),
        (np.zeros((0, 4)), "1.npy must hold one map"),
    ):
        np.save(file, bad)
        fails(words)
    file.write_bytes(b"\x93NUMPY")
    fails("1.npy cannot be read")
    np.save(file, np.zeros((4, 4)))
    np.savez(logits, image_id=["birds/0", "birds/1"], logits=np.zeros((2, 3)))
    fails("lacks image 'birds/2'")
    np.savez(logits, image_id=["birds/0"], logits=np.zeros((2, 3)))
    fails(r"not \(1,\) and \(2, 3\)")
    np.savez(logits, logits=np.zeros((2, 3)))
    fails("must hold the arrays image_id")
    logits.write_bytes(b"PK\x03\x04 torn")
    fails("logits.npz cannot be read")
    whole = pack({"image_id": np.array(["birds/0"]), "logits": np.zeros((1, 3))})
    for place in range(0, len(whole), 7):  # any damage is one line, if it is seen at all
        logits.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(InputError):
            list(saved_predictions(folder, samples))
    logits.unlink()
    assert len(list(saved_predictions(folder, samples))) == 3
    file.unlink()
    (folder / "birds" / "2.npy").unlink()
    fails(r"birds/1.npy \(2 missing in all\)")


def test_only_maps_can_be_saved(tmp_path: Path, samples: list[Sample]) -> None:
    boxes = [(("birds/0",), Prediction(boxes=torch.rand(1, 4)))]
    with pytest.raises(InputError, match="no maps"):
        list(save_predictions(boxes, tmp_path))
    (tmp_path / "birds").write_text("in the way")
    with pytest.raises(InputError, match="is a file, not a folder"):
        list(save_predictions(_stream(samples), tmp_path))


# --------------------------------------------------------------------------------------- truths


def test_read_truth(tmp_path: Path, samples: list[Sample]) -> None:
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[2, 3] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    rgba = np.zeros((10, 20, 4), dtype=np.uint8)
    rgba[..., 3], rgba[5, 6, 2] = 255, 9
    Image.fromarray(rgba).save(tmp_path / "ignore.png")
    sample = Sample(
        "0",
        samples[0].path,
        4,
        ((-3.0, 0.0, 70.0, 48.0), (1.0, 2.0, 3.0, 4.0)),
        (tmp_path / "mask.png",),
        tmp_path / "ignore.png",
    )
    truth = read_truth(sample)
    assert (truth.label, truth.size, truth.boxes.shape) == (4, (64, 48), (2, 4))
    np.testing.assert_array_equal(truth.instance_masks[0], mask == 1)
    assert truth.ignore_mask is not None
    assert np.argwhere(truth.ignore_mask).tolist() == [[5, 6]]


def _broken(samples: list[Sample], tmp_path: Path) -> Iterator[tuple[Sample, str]]:
    path = samples[0].path
    for box in ((5, 5, 5, 9), (9, 5, 5, 9), (1, 1, float("nan"), 9), (1, 1, float("inf"), 9)):
        yield Sample("x", path, 0, (box,)), "image x has a box without area"
    for box in ((64, 0, 70, 9), (0, 48, 9, 60), (-9, 0, -1, 9)):
        yield Sample("x", path, 0, (box,)), "image x of 64x48 pixels has a box outside"
    yield Sample("x", tmp_path / "gone.png", 0), "gone.png does not exist"
    (tmp_path / "torn.png").write_bytes(path.read_bytes()[:20])
    yield Sample("x", tmp_path / "torn.png", 0), "torn.png is no readable image"
    yield Sample("x", path, 0, (), (tmp_path / "torn.png",)), "torn.png cannot be decoded"
    yield Sample("x", path, 0, (), (), tmp_path / "gone.png"), "gone.png does not exist"


def test_read_truth_names_what_is_wrong(samples: list[Sample], tmp_path: Path) -> None:
    for sample, words in _broken(samples, tmp_path):
        with pytest.raises(InputError, match=words):
            read_truth(sample)
