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
#: least and largest coordinates: u0, v0, u1, v1
Bounds = tuple[float, float, float, float]


class Shape(Protocol):
    """A region of the plane."""

    def bounds(self) -> Bounds:
        """A rectangle that contains it."""
        ...

    def covers(self, u: Floats, v: Floats) -> Bools:
        """Say which of the points (u, v), arrays of one shape, lie inside."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An axis-parallel ellipse with its semi-axes."""

    center: Point
    axes: Point

    def bounds(self) -> Bounds:
        """As :meth:`Shape.bounds`."""
        (x, y), (a, b) = self.center, self.axes
        return x - a, y - b, x + a, y + b

    def covers(self, u: Floats, v: Floats) -> Bools:
        """As :meth:`Shape.covers`."""
        x, y = (u - self.center[0]) / self.axes[0], (v - self.center[1]) / self.axes[1]
        return np.asarray(x * x + y * y <= 1)


@dataclass(frozen=True)
class Polygon:
    """A polygon; a point is inside when a ray from it crosses the border an odd number of times."""

    points: tuple[Point, ...]

    def bounds(self) -> Bounds:
        """As :meth:`Shape.bounds`."""
        x, y = zip(*self.points, strict=True)
        return min(x), min(y), max(x), max(y)

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

    @property
    def _rotation(self) -> Point:
        square = self.turn * self.turn
        return (1 - square) / (1 + square), 2 * self.turn / (1 + square)

    def local(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Local coordinates of pixel positions."""
        cosine, sine = self._rotation
        x, y = (x - self.center[0]) / self.scale, (y - self.center[1]) / self.scale
        u, v = cosine * x + sine * y, cosine * y - sine * x
        return (-u if self.flip else u), v

    def pixel(self, u: float, v: float) -> Point:
        """Pixel position of a local point."""
        cosine, sine = self._rotation
        u = -u if self.flip else u
        x, y = cosine * u - sine * v, sine * u + cosine * v
        return self.center[0] + self.scale * x, self.center[1] + self.scale * y


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels x0 <= x < x1, y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def around(cls, placement: Placement, bounds: Bounds, side: int) -> Window:
        """The part of a picture of ``side`` pixels that contains a rectangle of a local frame."""
        u0, v0, u1, v1 = bounds
        corners = [placement.pixel(u, v) for u in (u0, u1) for v in (v0, v1)]
        x, y = zip(*corners, strict=True)
        # A pixel more on each side than rounding could need.
        low = [max(0, int(min(w)) - 1) for w in (x, y)]
        high = [min(side, int(max(w)) + 2) for w in (x, y)]
        return cls(low[0], low[1], max(low[0], high[0]), max(low[1], high[1]))

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a picture with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def centers(self) -> tuple[Floats, Floats]:
        """Positions of the pixels' centres, each (rows, columns)."""
        y, x = np.mgrid[self.y0 : self.y1, self.x0 : self.x1]
        return x + 0.5, y + 0.5
