"""The center baseline: choosing its threshold is choosing the size of one centred square."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsolbench.backbones import NoBackbone
from wsolbench.cost import count_macs, count_parameters
from wsolbench.metrics.scorer import Scorer
from wsolbench.protocol import load_protocol
from wsolbench.registry import METHODS
from wsolbench.types import Truth

SIDE = 224


def center_box() -> Any:
    method: Any = METHODS.get("center-box")
    return method(NoBackbone(), 7, method.Options()).eval()


def squares() -> NDArray[np.float64]:
    """Every centred square of the frame as the evaluators write boxes: (112, 4)."""
    first = np.arange(SIDE / 2)
    last = np.minimum(SIDE - first, SIDE - 1)
    return np.stack([first, first, last, last], axis=1)


def overlaps(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inclusive IoU of each of ``boxes`` (n, 4) with each of ``truth`` (m, 4): (n, m)."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(2)
    areas = [(b[:, 2:] - b[:, :2] + 1).prod(1) for b in (boxes, truth)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared))


@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_the_best_of_all_centred_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre, half = rng.normal(112, 15, (300, 2)), rng.uniform(20, 100, (300, 2))
    boxes = np.clip(np.hstack([centre - half, centre + half]), 0, SIDE - 1).round()
    scorer = Scorer(load_protocol("wsoleval"))
    method = center_box()
    for box in boxes:
        truth = Truth(0, (SIDE, SIDE), box[None])
        scorer.update([truth], method.localize(torch.zeros(1, 3, SIDE, SIDE), None))
    found = scorer.compute().figures
    iou = overlaps(squares(), boxes)
    best = {level: 100 * (iou >= level).mean(1).max() for level in (0.3, 0.5, 0.7)}
    assert found["max_box_acc"] == pytest.approx(best[0.5])
    assert found["max_box_acc_v2"] == pytest.approx(np.mean(list(best.values())))
    assert best[0.5] > 100 * (iou[0] >= 0.5).mean()  # the whole frame is no such square


def test_as_many_squares_can_be_told_apart_as_its_docstring_says() -> None:
    (score_map,) = center_box().localize(torch.zeros(1, 3, SIDE, SIDE), None).maps.numpy()
    low, high = score_map.min(), score_map.max()
    levels = ((score_map - low) / (high - low) * 255).astype(np.uint8)
    widths = {int((levels.max(0) > level).sum()) for level in range(255)}
    assert len(widths) == 107


@pytest.mark.parametrize("side", [32, 33])
def test_it_is_the_same_centred_map_for_every_image_and_class(side: int) -> None:
    prediction = center_box().localize(torch.rand(3, 3, side, side), torch.arange(3))
    maps = prediction.maps
    assert maps.shape == (3, side, side)
    for other in (maps.flip(0), maps.flip(1), maps.flip(2), maps.mT):
        torch.testing.assert_close(other, maps)
    assert maps[0].argmax() in [side * r + c for r in (side // 2 - 1, side // 2) for c in (r,)]
    assert prediction.logits is None
    assert prediction.boxes is None


def test_it_costs_nothing() -> None:
    assert count_parameters(center_box()) == (0, 0)
    assert count_macs(center_box(), 64) == 0
