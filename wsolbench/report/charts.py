"""Where the marks of a chart stand, in percent of its width and height.

Percent and not pixels: the page draws them into boxes of any width without scaling their text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsolbench.few_shot import ordered

#: points of a curve that a chart draws
POINTS = 125


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Place of a value in percent of the axis."""
        if self.log:
            low, high, value = (math.log(v) for v in (self.low, self.high, value))
        else:
            low, high = self.low, self.high
        return round(100 * (value - low) / (high - low), 3)

    def ticks(self) -> list[float]:
        """Round values on the axis, 4 to 8 of them where it is linear."""
        if self.log:
            return [v for v in _round_values(self.low, self.high) if self.low <= v <= self.high]
        step = _step(self.high - self.low)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(n * step, 10) for n in range(first, last + 1)]


def percent_scale(values: Iterable[float]) -> Scale:
    """An axis of percentages that holds the values, from one multiple of ten to another."""
    known = list(values) or [0.0, 100.0]
    low = min(90, math.floor(min(known) / 10) * 10)
    return Scale(low, min(100, max(math.ceil(max(known) / 10) * 10, low + 10)))


def positive_scale(values: Sequence[float]) -> Scale:
    """An axis of positive numbers: logarithmic, with some room at both ends."""
    return Scale(min(values) / 1.6, max(values) * 1.6, log=True)


def polyline(x: Sequence[float], y: Sequence[float | None], sx: Scale, sy: Scale) -> list[str]:
    """Points of a curve in an SVG of 1000 x 1000, as one text for each unbroken piece."""
    step = max(1, math.ceil(len(x) / POINTS))
    pieces: list[list[str]] = [[]]
    for u, v in list(zip(x, y, strict=True))[::step]:
        if v is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{10 * sx.at(u):.0f},{1000 - 10 * sy.at(v):.0f}")
    return [" ".join(piece) for piece in pieces if piece]


def shot_places(shots: Iterable[int | None]) -> dict[int | None, float]:
    """Place each number of images a class in percent of an axis: evenly, all (None) last."""
    in_order = ordered(set(shots))
    return {k: round(100 * (n + 0.5) / len(in_order), 3) for n, k in enumerate(in_order)}


def _step(span: float) -> float:
    size: float = 10 ** math.floor(math.log10(span / 4))
    return next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 8)


def _round_values(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]


def short_number(value: float) -> str:
    """A number of any size in few characters: 2.9M, 195M, 41."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
