"""The three public evaluators' outputs on 62 synthetic maps, reproduced exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_oracle as oracle
import torch
from numpy.typing import NDArray

from wsolbench.metrics import derived
from wsolbench.metrics import functional as F
from wsolbench.metrics.scorer import Scorer
from wsolbench.protocol import Protocol, Selection, load_protocol
from wsolbench.types import Prediction, Truth

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Inputs:
    """Maps (h, w) at their native resolutions, and what goes with them."""

    maps: tuple[Array, ...]
    sizes: Array
    boxes: tuple[Array, ...]
    logits: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.maps)


def _arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Arrays]:
    return {p.stem: _arrays(p) for p in (shared / "golden" / "evaluators").glob("*.npz")}


def _pairs(a: Array, b: Array) -> Iterator[tuple[Array, Array]]:
    return zip(a, b, strict=True)


@pytest.fixture(scope="module")
def inputs(golden: dict[str, Arrays]) -> Inputs:
    raw = golden["inputs"]
    maps = {int(i): m for s in (14, 28, 224) for i, m in _pairs(raw[f"idx{s}"], raw[f"maps{s}"])}
    boxes = [b[:n].astype(float) for b, n in _pairs(raw["boxes_xyxy"], raw["n_boxes"])]
    return Inputs(
        tuple(maps[i] for i in range(len(maps))),
        raw["image_wh"],
        tuple(boxes),
        raw["logits"],
        raw["labels"],
    )


def _largest(native: Array, protocol: Protocol, thresholds: Array) -> Array:
    return F.largest_boxes(F.protocol_map(native, protocol)[1], thresholds, protocol.box)


def _best(native: Array, protocol: Protocol, thresholds: Array, true: Array) -> Array:
    levels = F.protocol_map(native, protocol)[1]
    return F.best_iou(levels, thresholds, protocol.box, true, of_all=False)[1]


def _true(inputs: Inputs, i: int, protocol: Protocol) -> Array:
    width, height = map(int, inputs.sizes[i])
    return F.true_boxes(inputs.boxes[i], (width, height), protocol.geometry, protocol.truth)


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [
        ("standard", "clovaai_box", "gt224"),
        ("wsoleval", "clovaai_box", "gt224"),
        ("sat", "sat", "gt_crop224"),
        ("ts-cam", "tscam", "gt224"),
    ],
)
def test_true_boxes(
    golden: dict[str, Arrays], inputs: Inputs, name: str, file: str, key: str
) -> None:
    protocol = load_protocol(name)
    for i in range(len(inputs)):
        ours = _true(inputs, i, protocol)
        np.testing.assert_array_equal(ours, golden[file][key][i, : len(ours)])


def test_standard_measures_as_wsoleval_does() -> None:
    ours, theirs = load_protocol("standard"), load_protocol("wsoleval")
    for part in ("geometry", "truth", "map", "box", "thresholds", "iou"):
        assert getattr(ours, part) == getattr(theirs, part)


def test_wsoleval_boxes_and_overlaps(golden: dict[str, Arrays], inputs: Inputs) -> None:
    protocol, expected = load_protocol("wsoleval"), golden["clovaai_box"]
    thresholds = F.threshold_values(protocol.thresholds)
    np.testing.assert_array_equal(thresholds, expected["thresholds"])
    for i, native in enumerate(inputs.maps):
        true = _true(inputs, i, protocol)
        levels = F.protocol_map(native, protocol)[1]
        np.testing.assert_array_equal(levels, expected["quantised224"][i])
        boxes = F.largest_boxes(levels, thresholds, protocol.box)
        np.testing.assert_array_equal(boxes, expected["v1_boxes"][i])
        for of_all in (False, True):
            _, best, best_of_all = F.best_iou(levels, thresholds, protocol.box, true, of_all)
            np.testing.assert_array_equal(best, expected["v1_best_iou"][i])
        np.testing.assert_array_equal(best_of_all, expected["v2_best_iou"][i])


def test_the_oracle_of_all_contours(golden: dict[str, Arrays], inputs: Inputs) -> None:
    """The sweep keeps no list of boxes; the unit tests hold it to an oracle that does."""
    expected = golden["clovaai_box"]
    offsets = expected["v2_box_offsets"]
    for i, quantised in enumerate(expected["quantised224"]):
        for j in range(10):
            foreground = quantised > expected["levels"][i, 100 * j]
            found = oracle.contours(foreground)
            boxes = [oracle.contour_box(contour) for contour in found] or [[0, 0, 0, 0]]
            assert len(boxes) == expected["v2_n_contours"][i, 100 * j]
            ours = sorted(oracle.clipped(np.array(boxes), foreground.shape).tolist())
            rows = slice(offsets[10 * i + j], offsets[10 * i + j + 1])
            np.testing.assert_array_equal(ours, expected["v2_box_list"][rows])


@pytest.mark.parametrize("suffix", ["", "_i01"])
def test_pixel_histograms(golden: dict[str, Arrays], inputs: Inputs, suffix: str) -> None:
    expected, protocol = golden["clovaai_pxap"], load_protocol("wsoleval")
    thresholds = F.threshold_values(0.01 if suffix else 0.001)
    np.testing.assert_array_equal(F.bin_edges(thresholds), expected[f"bin_edges{suffix}"])
    counts = np.stack(
        [
            F.pixel_counts(F.protocol_map(m, protocol)[0], mask == 1, mask != 255, thresholds)
            for m, mask in zip(inputs.maps, expected["mask224"], strict=True)
        ]
    )
    pooled = counts.sum(axis=0)
    np.testing.assert_array_equal(pooled[0], expected[f"hist_true{suffix}"])
    np.testing.assert_array_equal(pooled[1], expected[f"hist_false{suffix}"])
    assert _pxap(pooled) == pytest.approx(expected[f"pxap{suffix}"], rel=0, abs=1e-9)
    ours = [_pxap(c) if c[0].any() else np.nan for c in counts]
    np.testing.assert_allclose(ours, expected[f"pxap_per_image{suffix}"], rtol=0, atol=1e-9)
    if suffix:
        np.testing.assert_array_equal(counts[:, 0], expected["hist_true_per_image_i01"])
        np.testing.assert_array_equal(counts[:, 1], expected["hist_false_per_image_i01"])


def test_sat_boxes(golden: dict[str, Arrays], inputs: Inputs) -> None:
    protocol, expected = load_protocol("sat"), golden["sat"]
    for i, native in enumerate(inputs.maps):
        found = _largest(native, protocol, expected["thresholds"])
        np.testing.assert_array_equal(found, expected["boxes"][i])
        ours = _best(native, protocol, expected["thresholds"], _true(inputs, i, protocol))
        np.testing.assert_array_equal(ours, expected["max_iou"][i])


def test_tscam_boxes(golden: dict[str, Arrays], inputs: Inputs) -> None:
    protocol, expected = load_protocol("ts-cam"), golden["tscam"]
    for i, native in enumerate(inputs.maps):
        found = _largest(native, protocol, expected["thresholds"])
        np.testing.assert_array_equal(found, expected["boxes_gt"][:, i])
        ours = _best(native, protocol, expected["thresholds"], _true(inputs, i, protocol))
        np.testing.assert_array_equal(ours, expected["gt_known_iou"][:, i])
        for j, other in enumerate(expected["top5_classes"][i]):
            shift = (other - inputs.labels[i]) % 10 * max(1, native.shape[1] // 10)
            rolled = _largest(np.roll(native, shift, axis=1), protocol, expected["thresholds"])
            np.testing.assert_array_equal(rolled, expected["boxes_top5"][:, i, j])


# ------------------------------------------------------------------ the same through the scorer


def _scorer(inputs: Inputs, protocol: Protocol, masks: Array | None = None) -> Scorer:
    scorer = Scorer(protocol)
    for i, native in enumerate(inputs.maps):
        pixels = {}
        if masks is not None:
            pixels = {"instance_masks": (masks[i] == 1,), "ignore_mask": masks[i] == 255}
        width, height = map(int, inputs.sizes[i])
        truth = Truth(int(inputs.labels[i]), (width, height), inputs.boxes[i], **pixels)
        prediction = Prediction(
            maps=torch.from_numpy(native)[None], logits=torch.from_numpy(inputs.logits[i : i + 1])
        )
        scorer.update([truth], prediction)
    return scorer


@pytest.fixture(scope="module")
def wsoleval(golden: dict[str, Arrays], inputs: Inputs) -> dict[str, Scorer]:
    """Scorers of all maps, at 1000 thresholds and, as ``_i01``, at 100."""
    masks, protocol = golden["clovaai_pxap"]["mask224"], load_protocol("wsoleval")
    coarse = protocol.model_copy(update={"thresholds": 0.01})
    return {"": _scorer(inputs, protocol, masks), "_i01": _scorer(inputs, coarse, masks)}


@pytest.mark.parametrize("suffix", ["", "_i01"])
def test_wsoleval_figures(
    golden: dict[str, Arrays], inputs: Inputs, wsoleval: dict[str, Scorer], suffix: str
) -> None:
    boxes, pixels = golden["clovaai_box"], golden["clovaai_pxap"]
    scores = wsoleval[suffix].compute()
    for i, iou in enumerate((30, 50, 70)):
        for ours, key in ((f"box_acc_{iou}", "v1"), (f"box_acc_v2_{iou}", "v2")):
            right = np.array(scores.curves[ours]) * len(inputs) / 100
            expected = boxes[f"{key}_num_correct{suffix}"][i]
            np.testing.assert_allclose(right, expected, rtol=0, atol=1e-9)
            assert max(scores.curves[ours]) == pytest.approx(boxes[f"{key}_max_acc{suffix}"][i])
    assert scores.figures == {
        "max_box_acc": pytest.approx(boxes[f"v1_max_acc{suffix}"][1], abs=1e-9),
        "max_box_acc_v2": pytest.approx(boxes[f"v2_mean_acc{suffix}"], abs=1e-9),
        "pxap": pytest.approx(pixels[f"pxap{suffix}"], abs=1e-9),
        "top1_cls": pytest.approx(golden["sat"]["acc_cls_top1"][0]),
        "top5_cls": pytest.approx(golden["sat"]["acc_cls_top5"][0]),
    }
    assert (scores.count, scores.threshold) == (len(inputs), None)


def test_standard_figures(golden: dict[str, Arrays], wsoleval: dict[str, Scorer]) -> None:
    scorer = Scorer(load_protocol("standard"))
    scorer.merge_state(wsoleval[""])  # what is measured is the same
    boxes, pixels = golden["clovaai_box"], golden["clovaai_pxap"]
    threshold = scorer.select_threshold()
    scores = scorer.compute(threshold)
    right = boxes["v1_num_correct"][1]
    runs = np.split(np.arange(1000), np.flatnonzero(np.diff(right)) + 1)
    longest = max((r for r in runs if right[r[0]] == right.max()), key=len)
    assert threshold == boxes["thresholds"][longest[(len(longest) - 1) // 2]]
    best = pytest.approx(boxes["v1_max_acc"][1], abs=1e-9)
    assert scores.figures["gt_known_loc"] == scores.figures["max_box_acc"] == best
    assert scores.figures["max_box_acc_v2"] == pytest.approx(boxes["v2_mean_acc"], abs=1e-9)
    assert scores.figures["pxap"] == pytest.approx(pixels["pxap"], abs=1e-9)


def test_pixels_from_masks_of_any_size(golden: dict[str, Arrays], inputs: Inputs) -> None:
    masks = golden["clovaai_pxap"]
    for i, instances in enumerate(((0,), (1,), (2,), (3, 4))):
        width, height = map(int, inputs.sizes[i])
        truth = Truth(
            0,
            (width, height),
            inputs.boxes[i],
            tuple(masks[f"raw_instance_{j}_img{i}"] == 1 for j in instances),
            masks[f"raw_ignore_img{i}"] == 1,
        )
        covered, counted = F.pixel_truth(truth, 224)
        np.testing.assert_array_equal(np.where(counted, covered, 255), masks["mask224"][i])


@pytest.mark.parametrize("suffix", ["", "_eval_cub", "_eval_ilsvrc"])
def test_sat_figures(golden: dict[str, Arrays], inputs: Inputs, suffix: str) -> None:
    lists = {"_eval_cub": (0.4,), "_eval_ilsvrc": (0.3,)}
    protocol, expected = load_protocol("sat"), golden["sat"]
    if suffix:
        protocol = protocol.model_copy(update={"thresholds": lists[suffix]})
    scores = _scorer(inputs, protocol).compute()
    ours = {f"acc_IoU{iou}": f"box_acc_{iou}" for iou in (30, 50, 70)}
    ours |= {"acc_loc_top1": "top1_loc", "acc_loc_top5": "top5_loc"}
    for key, curve in ours.items():
        np.testing.assert_allclose(scores.curves[curve], expected[f"{key}{suffix}"], atol=1e-9)
    assert scores.threshold is not None
    top1, known = expected[f"returned_top1loc_gtloc{suffix}"]
    assert scores.threshold == expected[f"selected_threshold{suffix}"]
    at = scores.curves["thresholds"].index(scores.threshold)
    assert scores.figures == {
        "gt_known_loc": pytest.approx(known),
        "top1_loc": pytest.approx(top1),
        "top5_loc": pytest.approx(expected[f"acc_loc_top5{suffix}"][at]),
        "top1_cls": pytest.approx(expected[f"acc_cls_top1{suffix}"][0]),
        "top5_cls": pytest.approx(expected[f"acc_cls_top5{suffix}"][0]),
    }


@pytest.mark.parametrize("j", [0, 1, 2])
def test_tscam_figures(golden: dict[str, Arrays], inputs: Inputs, j: int) -> None:
    expected = golden["tscam"]
    threshold = float(expected["thresholds"][j])
    change = {"selection": Selection(kind="fixed", value=threshold), "thresholds": (threshold,)}
    scores = _scorer(inputs, load_protocol("ts-cam").model_copy(update=change)).compute()
    percent = dict(zip(expected["columns"], 100 * expected["results"][j].mean(axis=0), strict=True))
    assert scores.figures == {
        "gt_known_loc": pytest.approx(percent["loc_gt_known"]),
        "top1_loc": pytest.approx(percent["loc_top1"]),
        "top5_loc": pytest.approx(percent["loc_top5"]),
        "top1_cls": pytest.approx(percent["cls_top1"]),
        "top5_cls": pytest.approx(percent["cls_top5"]),
    }


@pytest.mark.parametrize("j", [0, 1, 2])
def test_tscam_kinds_of_answers(golden: dict[str, Arrays], inputs: Inputs, j: int) -> None:
    expected = golden["tscam"]
    columns = list(expected["columns"])
    theirs = ["d_right", "d_cls", "d_multi", "d_part", "d_more", "d_wrong"]
    flags = expected["results"][j][:, [columns.index(name) for name in theirs]]
    threshold = float(expected["thresholds"][j])
    change = {"selection": Selection(kind="fixed", value=threshold), "thresholds": (threshold,)}
    table = _scorer(inputs, load_protocol("ts-cam").model_copy(update=change)).image_table()
    assert table is not None
    np.testing.assert_array_equal(derived.kinds(table, 0), flags.argmax(axis=1))


def test_tscam_thresholds_of_the_datasets(inputs: Inputs) -> None:
    few = replace(inputs, maps=inputs.maps[:2])
    merged = _scorer(few, load_protocol("ts-cam"))
    assert merged.compute().threshold == 0.1
    merged.dataset_name = "ilsvrc"
    assert merged.compute().threshold == 0.12


# -------------------------------------------------------------- maps of the reference models


@pytest.mark.parametrize(
    ("file", "name", "key"),
    [("sat_tiny", "sat", "boxes"), ("tscam_tiny", "ts-cam", "boxes_true_class")],
)
def test_boxes_of_model_maps(shared: Path, file: str, name: str, key: str) -> None:
    arrays, protocol = _arrays(shared / "golden" / "models" / f"{file}.npz"), load_protocol(name)
    maps = arrays["eval/map"] if name == "sat" else _class_maps(arrays, arrays["labels"])
    for native, expected in _pairs(maps, arrays[f"post/{key}"]):
        ours = _largest(native, protocol, arrays["post/thresholds"])
        np.testing.assert_array_equal(ours, expected)
    for native, expected in _pairs(maps[:2], arrays["post/norm_map_224_img01"]):
        score = F.protocol_map(native, protocol)[0]
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)


def test_boxes_of_the_top_classes(shared: Path) -> None:
    arrays = _arrays(shared / "golden" / "models" / "tscam_tiny.npz")
    for j in range(5):
        maps = _class_maps(arrays, arrays["post/top5"][:, j])
        for native, expected in _pairs(maps, arrays["post/boxes_top5_thr0.1"][:, j]):
            ours = _largest(native, load_protocol("ts-cam"), np.array([0.1]))
            np.testing.assert_array_equal(ours[0], expected)


def test_score_map_of_cam(shared: Path) -> None:
    arrays = _arrays(shared / "golden" / "models" / "cam_tiny.npz")
    for native, expected in zip(
        arrays["resnet/14/cam"], arrays["resnet/14/scoremap_img01"], strict=False
    ):
        score = F.protocol_map(native, load_protocol("wsoleval"))[0]
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-6)


def _class_maps(arrays: Arrays, classes: Array) -> Array:
    return np.asarray(arrays["eval/cams"][np.arange(len(classes)), classes])


def _pxap(counts: Array) -> float:
    return 100 * F.average_precision(*F.precision_recall(counts))
