"""PSOL against its script: the box that a crop leaves of another one, and overlaps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsolbench.metrics import functional as F
from wsolbench.registry import METHODS

#: of the input, in pixels
SIDE = 224
#: pixels of a side of a frame that leave nothing to rounding
FINE = 1e8


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, NDArray[Any]]:
    with np.load(shared / "golden" / "post_hoc" / "norm_psol.npz") as file:
        return {name: file[name] for name in file.files if name.startswith("psol/")}


def test_what_is_regressed_is_the_box_cut_to_the_crop(golden: dict[str, NDArray[Any]]) -> None:
    """Given their crops, which they redraw until some of the box shows; ours are the suite's."""
    shares: Any = sys.modules[METHODS.get("psol").__module__].shares
    rows = torch.from_numpy(golden["psol/rrc"])
    box, (top, left, height, width) = rows[:, 3:7], rows[:, 7:11].unbind(1)
    corner, size = torch.stack([left, top] * 2, 1), torch.stack([width, height] * 2, 1)
    target, seen = shares((box - corner) / size * SIDE, SIDE)
    near, extent = target.split(2, dim=1)
    wanted: Tensor = rows[:, 11:]
    torch.testing.assert_close(torch.cat([near, near + extent], 1), wanted, rtol=0, atol=1e-7)
    assert seen.all()


def test_overlaps_are_the_references(golden: dict[str, NDArray[Any]]) -> None:
    """Theirs ends boxes at the frame, without the far edge; ours counts pixels, tiny ones here."""
    corners = []
    for name in ("pred", "true"):
        near, extent = np.split(
            FINE * golden[f"psol/iou_{name}_xywh"].astype(np.float64), 2, axis=1
        )
        corners.append(np.concatenate([near, np.minimum(near + extent, FINE) - 1], axis=1))
    np.testing.assert_allclose(F.paired_iou(*corners), golden["psol/iou"], rtol=0, atol=1e-6)
