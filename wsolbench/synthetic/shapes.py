"""Plane shapes and their pixels, in arithmetic that gives the same bits on every platform.

Only +, -, *, / and comparisons of float64 are used, one array operation at a time: these are
rounded alike everywhere, which sines and matrix products are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Point = tuple[float, float]


class Shape(Protocol):
    """A region of the plane."""

    def covers(self, u: Floats, v: Floats) -> Bools:
        """Say which of the points (u, v), arrays of one shape, lie inside."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An axis-parallel ellipse with its semi-axes."""

    center: Point
    axes: Point

    def covers(self, u: Floats, v: Floats) -> Bools:
        """As :meth:`Shape.covers`."""
        x, y = (u - self.center[0]) / self.axes[0], (v - self.center[1]) / self.axes[1]
        return np.asarray(x * x + y * y <= 1)


@dataclass(frozen=True)
class Polygon:
    """A polygon; a point is inside when a ray from it crosses the border an odd number of times."""

    points: tuple[Point, ...]

    def covers(self, u: Floats, v: Floats) -> Bools:
        """As :meth:`Shape.covers`."""
        inside = np.zeros(u.shape, np.bool_)
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:] + self.points[:1], strict=True):
            if y0 == y1:
                continue
            crossed = (v < y0) != (v < y1)
            inside ^= crossed & (u < x0 + (v - y0) * (x1 - x0) / (y1 - y0))
        return inside


@dataclass(frozen=True)
class Placement:
    """Where a local frame lies in the picture.

    Attributes:
        center: pixel that shows the local origin.
        scale: pixels a local unit.
        turn: tangent of half the angle of rotation, which makes sine and cosine fractions.
        flip: whether the local x axis points left.
    """

    center: Point
    scale: float
    turn: float
    flip: bool

    def local(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Local coordinates of pixel positions."""
        square = self.turn * self.turn
        cosine, sine = (1 - square) / (1 + square), 2 * self.turn / (1 + square)
        x, y = (x - self.center[0]) / self.scale, (y - self.center[1]) / self.scale
        u, v = cosine * x + sine * y, cosine * y - sine * x
        return (-u if self.flip else u), v


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels x0 <= x < x1, y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def around(cls, placement: Placement, reach: float, side: int) -> Window:
        """The part of a picture of ``side`` pixels that is within ``reach`` local units."""
        radius = reach * placement.scale
        low = [max(0, int(c - radius)) for c in placement.center]
        high = [min(side, int(c + radius) + 1) for c in placement.center]
        return cls(low[0], low[1], max(low[0], high[0]), max(low[1], high[1]))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a picture with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def centers(self) -> tuple[Floats, Floats]:
        """Positions of the pixels' centres, each (rows, columns)."""
        y, x = np.mgrid[self.y0 : self.y1, self.x0 : self.x1]
        return x + 0.5, y + 0.5
