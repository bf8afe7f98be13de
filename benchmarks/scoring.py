"""Time of scoring one image: the sweep against the plain oracle, in one run on one core.

    python benchmarks/scoring.py --images 15

The oracle searches contours (or components) once a threshold, as the published evaluators do. Both
sides get quantised maps of 224x224 and one true box. Times are of the processor, so that a busy
machine shows less; figures must agree, or the run fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "tests")]

import cv2
import numpy as np
import scoring_oracle as oracle
from numpy.typing import NDArray

from wsolbench.metrics import functional as F
from wsolbench.protocol import load_protocol

Array = NDArray[Any]
SIDE = 224
TRUTH = np.array([[40.0, 30, 170, 190]])
STANDARD, SAT = load_protocol("standard"), load_protocol("sat")
THRESHOLDS, FEW = (F.threshold_values(p.thresholds) for p in (STANDARD, SAT))


def smooth(rng: np.random.Generator) -> Array:
    """14x14 values."""
    return rng.random((14, 14))


def noisy(rng: np.random.Generator) -> Array:
    """A blob under noise."""
    y, x = np.mgrid[:SIDE, :SIDE] - rng.uniform(60, 160, (2, 1, 1))
    blob = np.exp(-(x**2 + y**2) / 6000)
    return np.asarray(blob + rng.uniform(0.1, 0.5) * rng.random((SIDE, SIDE)))


def noise(rng: np.random.Generator) -> Array:
    """Values of their own at all pixels, the worst case."""
    return rng.random((SIDE, SIDE))


def plain_largest(levels: Array) -> Array:
    """Best IoU of the largest contour at each of 1000 thresholds, one contour search each."""
    largest = [oracle.largest_contour_box(found) or [0] * 4 for found in searched(levels)]
    return overlaps(oracle.clipped(np.array(largest), levels.shape))


def plain_all(levels: Array) -> Array:
    """Best IoU of all contours at each of 1000 thresholds, one contour search each."""
    boxes = [[oracle.contour_box(c) for c in found] or [[0] * 4] for found in searched(levels)]
    starts = np.cumsum([0, *map(len, boxes)])[:-1]
    best = overlaps(oracle.clipped(np.concatenate(boxes), levels.shape))
    return np.asarray(np.maximum.reduceat(best, starts))


def plain_components(score: Array) -> Array:
    """Best IoU at each of SAT's thresholds, one labelling each."""
    boxes = [oracle.component_box(score > threshold) for threshold in FEW.astype(np.float32)]
    return overlaps(np.array([box or [0, 0, SIDE, SIDE] for box in boxes]))


def searched(levels: Array) -> Iterator[Sequence[Array]]:
    """Contours at each threshold."""
    highest = int(levels.max())
    return (oracle.contours(levels > int(threshold * highest)) for threshold in THRESHOLDS)


def overlaps(boxes: Array) -> Array:
    """IoU with the true box, of all boxes in one call: the rest of the time is the search's."""
    return np.asarray(F.box_iou(boxes, TRUTH).max(axis=1))


def swept(levels: Array, of_all: bool) -> Array:
    """The same by the sweep; with all boxes, the largest ones come along."""
    _, best, best_of_all = F.best_iou(levels, THRESHOLDS, STANDARD.box, TRUTH, of_all)
    return best if best_of_all is None else best_of_all


def swept_components(score: Array) -> Array:
    """The same by the sweep."""
    return F.best_iou(score, FEW, SAT.box, TRUTH, of_all=False)[1]


CASES: tuple[tuple[str, str, Callable[[Array], Array], Callable[[Array], Array]], ...] = (
    ("v1", "standard", plain_largest, lambda m: swept(m, False)),
    ("v2", "standard", plain_all, lambda m: swept(m, True)),
    ("sat", "sat", plain_components, swept_components),
)


def timed(function: Callable[[Array], Array], score: Array, repeats: int) -> tuple[float, Array]:
    """Least milliseconds of ``repeats`` calls, and what they return."""
    least = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = function(score)
        least = min(least, time.process_time() - start)
    return 1000 * least, result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=15, help="maps of each kind")
    images = parser.parse_args().images
    cv2.setNumThreads(1)
    print("| | maps | oracle, ms | sweep, ms | sweep, slowest | ratio of medians |")
    print("|---|---|---|---|---|---|")
    for name, protocol_name, plain, ours in CASES:
        protocol = load_protocol(protocol_name)
        for kind in (smooth, noisy, noise):
            rng = np.random.default_rng(0)
            times = []
            for _ in range(images):
                score = F.protocol_map(kind(rng), protocol)[1]
                ours(score)  # loads the compiled code
                (slow, expected), (fast, found) = timed(plain, score, 1), timed(ours, score, 5)
                np.testing.assert_array_equal(found, expected)
                times.append((slow, fast))
            slow, fast = np.median(times, axis=0)
            slowest = max(fast for _, fast in times)
            print(
                f"| {name} | {kind.__name__} | {slow:.1f} | {fast:.2f} | {slowest:.2f} "
                f"| {slow / fast:.0f}x |"
            )


if __name__ == "__main__":
    main()
