"""The sweep against one search a threshold, on maps of every kind.

``WSOLBENCH_RANDOM`` is the number of random maps; 5000 take some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scoring_maps import KINDS, random_levels, random_map, random_shape

from wsolbench.metrics import functional as F
from wsolbench.metrics import sweep
from wsolbench.protocol import BoxRule

Array = NDArray[Any]

MAPS = int(os.environ.get("WSOLBENCH_RANDOM", "200"))
#: one map in so many may be large; it is cut at a few levels only
LARGE = 40
_SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
_FEW = st.sampled_from([0, 1, 2])
_CLIPPED = BoxRule(threshold="relative", region="largest-contour", clip=True, empty="zero")
_WHOLE = BoxRule(threshold="relative", region="largest-contour", clip=False, empty="unit")
_COMPONENT = BoxRule(threshold="absolute", region="largest-component", clip=False, empty="whole")


def _contours(levels: Array, threshold: float, rule: BoxRule, truth: Array) -> tuple[Any, ...]:
    """Largest box, its best IoU and that of all boxes, by one contour search."""
    found = oracle.contours(levels > int(threshold * int(levels.max())))
    empty = [0, 0, 0, 0] if rule.empty == "zero" else [0, 0, 1, 1]
    largest = np.array([oracle.largest_contour_box(found) or empty])
    boxes = np.array([oracle.contour_box(contour) for contour in found] or [empty])
    if rule.clip:
        largest, boxes = (oracle.clipped(some, levels.shape) for some in (largest, boxes))
    best = oracle.best_iou(largest, truth), oracle.best_iou(boxes, truth)
    return largest[0].tolist(), *best


def _component(score: Array, threshold: np.float32) -> list[int]:
    height, width = score.shape
    return oracle.component_box(score > threshold) or [0, 0, width, height]


def _assert_exact(levels: Array, thresholds: Array, truth: Array) -> None:
    for rule in (_CLIPPED, _WHOLE):
        boxes, best, best_of_all = F.best_iou(levels, thresholds, rule, truth, of_all=True)
        assert best_of_all is not None
        np.testing.assert_array_equal(boxes, F.largest_boxes(levels, thresholds, rule))
        for i, threshold in enumerate(thresholds):
            ours = boxes[i].tolist(), best[i], best_of_all[i]
            assert ours == _contours(levels, float(threshold), rule, truth)
    score = levels.astype(np.float32) / np.float32(255)
    for box, threshold in zip(
        F.largest_boxes(score, thresholds, _COMPONENT), thresholds.astype(np.float32), strict=True
    ):
        assert box.tolist() == _component(score, threshold)


def _random_truth(rng: np.random.Generator, height: int, width: int) -> Array:
    """One to three boxes of whole numbers, some inverted, some beyond the map."""
    corners = rng.integers(-2, [width + 2, height + 2], (int(rng.integers(1, 4)), 2, 2))
    return np.where(rng.random() < 0.9, np.sort(corners, axis=1), corners).reshape(-1, 4) + 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_random_maps(kind: str) -> None:
    for seed in range(-(-MAPS // len(KINDS))):
        rng = np.random.default_rng([KINDS.index(kind), seed])
        large = seed % LARGE == LARGE - 1
        height, width = random_shape(rng, 512 if large else 64)
        levels = random_levels(random_map(kind, rng, height, width), rng)
        thresholds = np.sort(rng.random(5 if large else 12))
        _assert_exact(levels, thresholds, _random_truth(rng, height, width))


@settings(max_examples=max(50, MAPS // 10), deadline=None)
@given(arrays(np.uint8, _SHAPES, elements=_FEW), st.integers(0, 1000))
def test_any_small_map(levels: Array, seed: int) -> None:
    truth = _random_truth(np.random.default_rng(seed), *levels.shape)
    _assert_exact(levels, np.array([0.0, 0.3, 0.5, 0.9]), truth)


@pytest.mark.parametrize("shape", [(3, 3), (2, 6), (1, 9), (4, 3)])
def test_every_binary_map_of_a_few_pixels(shape: tuple[int, int]) -> None:
    """All at once: nothing that can happen round one pixel is left to chance."""
    pixels = shape[0] * shape[1]
    bits = np.arange(2**pixels)[:, None] >> np.arange(pixels) & 1
    none, far = np.empty((0, 4)), np.array([0, 0])
    for ranks in bits.reshape(-1, *shape).astype(np.uint16):
        foreground = ranks > 0
        largest = oracle.largest_contour_box(oracle.contours(foreground)) or [0] * 4
        assert sweep.contours(ranks, 1, none, far)[0].tolist() == [largest]
        component = oracle.component_box(foreground) or [0] * 4
        kept = F._kept(ranks, np.zeros(1, np.uint16))
        assert sweep.largest_components(kept).tolist() == [component]


def test_a_region_that_gains_no_area_may_lose_its_lead() -> None:
    """Of two lines the later one leads, until it grows backwards past the first."""
    ranks = np.zeros((3, 9), np.uint16)
    ranks[1, 1] = ranks[2, 5] = 2
    ranks[1, 6] = ranks[0, 7] = 1
    boxes, _ = sweep.contours(ranks, 2, np.empty((0, 4)), np.array([8, 2]))
    literal = [oracle.largest_contour_box(oracle.contours(ranks > cut)) for cut in range(2)]
    assert boxes.tolist() == literal == [[1, 1, 2, 2], [5, 2, 6, 3]]


def test_several_thresholds_in_any_order_and_twice() -> None:
    levels = random_levels(np.random.default_rng(0).random((9, 7)), np.random.default_rng(1))
    _assert_exact(levels, np.array([0.5, 0.1, 0.5, 0.9, 0.1]), np.array([[1.0, 1, 4, 5]]))


def test_nan_is_no_foreground() -> None:
    score = np.full((4, 5), np.nan, np.float32)
    score[1, 2] = 1
    found = F.largest_boxes(score, np.array([0.2, 0.4]), _COMPONENT)
    assert found.tolist() == [[2, 1, 3, 2]] * 2


_FRESH = """
import logging, sys, types
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from numba import njit
name = "wsolbench.metrics.sweep"
module = sys.modules[name] = types.ModuleType(name)
module.__file__ = sys.argv[1]
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), vars(module))
for _ in range(2):
    assert module.largest_components(np.ones((1, 2, 8), np.uint8)).tolist() == [[0, 0, 8, 2]]
"""
_SAID = "compiling scoring kernels, once\n"


@pytest.fixture
def fixed_copy(tmp_path: Path) -> Path:
    """The module in a folder that takes no cache, as an installed one may be; also for root."""
    copy = tmp_path / "installed" / "sweep.py"
    copy.parent.mkdir()
    copy.write_text(Path(sweep.__file__).read_text())
    (copy.parent / "__pycache__").touch()
    return copy


def _said(copy: Path, home: Path) -> str:
    """What a fresh process says that uses the kernels twice."""
    changed = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    command = [sys.executable, "-c", _FRESH, str(copy)]
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | changed
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stderr


def test_compiling_is_announced_once_and_kept_in_the_users_folder(
    fixed_copy: Path, tmp_path: Path
) -> None:
    assert [_said(fixed_copy, tmp_path) for _ in range(2)] == [_SAID, ""]
    assert list((tmp_path / "cache").rglob("sweep.*.nbi"))


def test_without_any_folder_to_keep_it_in_it_is_compiled_anew(fixed_copy: Path) -> None:
    nowhere = fixed_copy.parent / "__pycache__"  # a file
    assert [_said(fixed_copy, nowhere) for _ in range(2)] == [_SAID] * 2


_AHEAD = """
from numba.core import event
from wsolbench.metrics import ahead

class Said(event.Listener):
    def on_start(self, event): print(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event): pass

if __name__ == "__main__":
    ahead.compile_ahead().wait()
    event.register("numba:compile", Said())
    ahead.compile_kernels()
"""


def test_kernels_compiled_ahead_are_not_compiled_again(tmp_path: Path) -> None:
    script = tmp_path / "ahead.py"
    script.write_text(_AHEAD)
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = os.environ | places
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", _SAID)
