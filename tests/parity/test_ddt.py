"""DDT against the script of PSOL, on its features: mean, component, map and box of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsolbench.registry import METHODS
from wsolbench.types import Batch

#: side of a cell of the features, and of the reference's input, in pixels
CELL, SIDE = 32, 448


class Stored(nn.Module):
    """A backbone whose features are its input."""

    num_features = 512

    def forward_features(self, image: Tensor) -> Tensor:
        return image


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, NDArray[Any]]:
    with np.load(shared / "golden" / "post_hoc" / "ddt.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def ddt(golden: dict[str, NDArray[Any]]) -> Any:
    """The method, fitted to both classes in batches of three; the second one holds both classes."""
    cls: Any = METHODS.get("ddt")
    method = cls(Stored(), 3, cls.Options())
    both = [features(golden, number) for number in (0, 1)]
    image = torch.cat(both)
    label = torch.cat([torch.full((len(f),), number) for number, f in enumerate(both)])
    batches = zip(image.split(3), label.split(3), strict=True)
    method.fit(Batch(i, own, ("",) * len(i)) for i, own in batches)
    return method


def features(golden: dict[str, NDArray[Any]], number: int) -> Tensor:
    return torch.from_numpy(golden[f"ddt/class{number}/features"].astype(np.float32))


@pytest.mark.parametrize("number", [0, 1])
def test_mean_and_component_are_the_references(
    golden: dict[str, NDArray[Any]], ddt: Any, number: int
) -> None:
    mean, (component,) = (golden[f"ddt/class{number}/{name}"] for name in ("mean", "component"))
    np.testing.assert_allclose(ddt.mean[number], mean, rtol=0, atol=1e-6 * mean.max())
    np.testing.assert_allclose(ddt.component[number], component, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_maps_and_boxes_are_the_references(
    golden: dict[str, NDArray[Any]], ddt: Any, number: int
) -> None:
    image = features(golden, number)
    maps = ddt.localize(image, torch.full((len(image),), number)).maps.numpy()
    wanted = golden[f"ddt/class{number}/heatmap"]
    np.testing.assert_allclose(maps, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    boxes = np.array([box_above_zero(score) for score in maps])
    np.testing.assert_array_equal(boxes, golden[f"ddt/class{number}/box_xywh_frac"])


def box_above_zero(score: NDArray[Any]) -> list[float]:
    """The reference's box: of the largest component of 8 neighbours, as shares of the image."""
    large = (score > 0).astype(np.uint8).repeat(CELL, 0).repeat(CELL, 1)
    count, _, stats, _ = cv2.connectedComponentsWithStats(large, connectivity=8)
    if count == 1:
        return [0.0, 0.0, 1.0, 1.0]
    box: list[int] = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax(), :4].tolist()
    return [side / SIDE for side in box]


def test_the_class_decides_the_map_and_none_means_the_nearest(
    golden: dict[str, NDArray[Any]], ddt: Any
) -> None:
    image = features(golden, 1)
    first, second = (ddt.localize(image, torch.full((len(image),), n)).maps for n in (0, 1))
    assert not torch.allclose(first, second, atol=0.1)
    assert torch.equal(ddt.localize(image, None).maps, second)


def test_a_class_without_images_says_nothing(golden: dict[str, NDArray[Any]], ddt: Any) -> None:
    image = features(golden, 0)[:1]
    assert not ddt.localize(image, torch.tensor([2])).maps.any()
