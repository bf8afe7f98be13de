"""Time of scoring one image: ours against the plain oracle in one run, on one core and on all.

    python benchmarks/scoring.py --images 15

The oracle searches contours (or components) once a threshold, as the published evaluators do, and
bins pixels by numpy. Both sides get normalised maps of 224x224, one true box and, for PxAP, a mask
with a region that does not count. Milliseconds are the processor's, of one core, so that a busy
machine shows less; images a second are by the clock, on threads as `score` runs them. Figures must
agree, or the run fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "benchmarks", "tests")]

import cv2
import numpy as np
import scoring_oracle as oracle
import torch
from machine import heading, print_row, print_titles
from numpy.typing import NDArray

from wsolbench.metrics import functional as F
from wsolbench.parallel import prefetched, usable_cores
from wsolbench.protocol import Protocol, load_protocol

Array = NDArray[Any]
SIDE = 224
TRUTH = np.array([[40.0, 30, 170, 190]])
STANDARD, SAT = load_protocol("standard"), load_protocol("sat")
#: pixels of an object, and those that count: all but a strip beside it
COVERED, COUNTED = np.zeros((SIDE, SIDE), np.bool_), np.ones((SIDE, SIDE), np.bool_)
COVERED[30:191, 40:171], COUNTED[30:191, 171:200] = True, False
#: maps that each core gets where images a second are timed
SHARE = 32
THRESHOLDS, FEW = (F.threshold_values(p.thresholds) for p in (STANDARD, SAT))


def smooth(rng: np.random.Generator) -> Array:
    """Three blobs on a 14x14 grid, as a network's last map shows them."""
    y, x = np.mgrid[:14, :14][:, None] - rng.uniform(2, 12, (2, 3, 1, 1))
    heights, widths = rng.uniform(0.3, 1, (3, 1, 1)), rng.uniform(2, 12, (3, 1, 1))
    return np.asarray((heights * np.exp(-(x**2 + y**2) / widths)).sum(axis=0))


def rough(rng: np.random.Generator) -> Array:
    """A value of its own at each point of a 14x14 grid."""
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


def plain_pixels(score: Array) -> Array:
    """Pixels in each bin, by numpy."""
    return oracle.pixel_counts(score, COVERED, COUNTED, F.bin_edges(THRESHOLDS))


def counted_pixels(score: Array) -> Array:
    """The same in one compiled pass."""
    return F.pixel_counts(score, COVERED, COUNTED, THRESHOLDS)


@dataclass(frozen=True)
class Case:
    """Two ways to the same figures, and which of :func:`F.protocol_map`'s two maps they get."""

    name: str
    protocol: Protocol
    plain: Callable[[Array], Array]
    ours: Callable[[Array], Array]
    quantised: bool = True


CASES = (
    Case("MaxBoxAcc", STANDARD, plain_largest, lambda m: swept(m, False)),
    Case("MaxBoxAccV2", STANDARD, plain_all, lambda m: swept(m, True)),
    Case("`sat`, 4 thresholds", SAT, plain_components, swept_components),
    Case("PxAP", STANDARD, plain_pixels, counted_pixels, quantised=False),
)


def timed(function: Callable[[Array], Array], score: Array, repeats: int) -> tuple[float, Array]:
    """Least milliseconds of ``repeats`` calls, and what they return."""
    least = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = function(score)
        least = min(least, time.process_time() - start)
    return 1000 * least, result


def compared(case: Case, scores: Sequence[Array]) -> Array:
    """Milliseconds (images, 2) of the plain way and of ours, whose results must be the same."""
    times = []
    for score in scores:
        case.ours(score)  # loads the compiled code
        (slow, expected), (fast, found) = timed(case.plain, score, 1), timed(case.ours, score, 5)
        np.testing.assert_array_equal(found, expected)
        times.append((slow, fast))
    return np.array(times)


def rate(function: Callable[[Array], Array], scores: Sequence[Array], threads: int) -> float:
    """Images a second by the clock, as many whatever the number of threads."""
    count = SHARE * usable_cores()
    items = [scores[i % len(scores)] for i in range(count)]
    start = time.perf_counter()
    deque(prefetched(function, items, ahead=max(64, 2 * threads), threads=threads), maxlen=0)
    return count / (time.perf_counter() - start)


def row(case: Case, kind: Callable[[np.random.Generator], Array], images: int) -> list[str]:
    """Cells of a line of the table."""
    rng = np.random.default_rng(0)
    scores = [F.protocol_map(kind(rng), case.protocol)[case.quantised] for _ in range(images)]
    times = compared(case, scores)
    slow, fast = np.median(times, axis=0)
    one, every = (rate(case.ours, scores, threads) for threads in (1, usable_cores()))
    cells = [case.name, kind.__name__, f"{slow:.1f}", f"{fast:.2f}", f"{times[:, 1].max():.2f}"]
    return [*cells, f"{slow / fast:.0f}x", f"{one:.0f}", f"{every:.0f}", f"{every / one:.1f}x"]


def main() -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=15, help="maps of each kind")
    images = parser.parse_args().images
    cv2.setNumThreads(1)
    cores = usable_cores()
    print(f"{heading(torch.device('cpu'))}; {images} maps of 224x224 of each kind, medians\n")
    times = "plain, ms", "ours, ms", "ours, slowest", "ratio of medians"
    print_titles(["", "maps", *times, "images/s, 1 core", f"images/s, {cores} cores", "ratio"])
    for case in CASES:
        for kind in (smooth, rough, noisy, noise):
            print_row(row(case, kind, images))


if __name__ == "__main__":
    main()
