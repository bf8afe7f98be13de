"""Birds made of parts, each of which tells something of the species.

After FunnyBirds (Hesse et al., ICCV 2023), in two dimensions. A species is a pattern of the body,
and a kind of tail, of crest and of wing; and each has its colour of the head, which is by far the
easiest to tell it by. In the local frame a bird looks to the right, its body lies at the origin and
a unit is about the length of body and head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from wsolbench.synthetic.shapes import (
    Bools,
    Bounds,
    Ellipse,
    Floats,
    Placement,
    Point,
    Polygon,
    Shape,
)

Color = tuple[float, float, float]

#: in the order of their numbers in part masks, which begin at 1
PART_NAMES = ("body", "wing", "tail", "head", "crest", "beak", "legs")


@dataclass(frozen=True, order=True)
class Species:
    """What tells a bird's class: a kind of each of four features.

    Attributes:
        pattern: of the body: belly, stripes, spots, checks.
        tail: forked or a fan.
        crest: none, spiky or round.
        wing: round or pointed, each with its own bars.
    """

    pattern: int
    tail: int
    crest: int
    wing: int


#: Any two of these differ in two features or more beside the colour of the head.
SPECIES = tuple(
    Species((tail + crest + wing) % 4, tail, crest, wing)
    for tail, crest, wing in product(range(2), range(3), range(2))
)


@dataclass(frozen=True)
class Colors:
    """Colours of a bird, 0 to 255; ``mark`` is that of its patterns, ``bare`` of beak and legs."""

    body: Color
    wing: Color
    tail: Color
    head: Color
    mark: Color
    bare: Color


@dataclass(frozen=True)
class Bird:
    """One bird in a picture.

    Attributes:
        species: its class.
        placement: where it is.
        colors: of the head that of its species, a little off; of the rest any.
        telling: size of tail, crest and wing, 1 for the usual one.
    """

    species: Species
    placement: Placement
    colors: Colors
    telling: float = 1.0


#: of the head, which alone is enough to tell a species of the benchmark
HEADS: tuple[Color, ...] = (
    (205, 45, 40),
    (235, 135, 30),
    (240, 215, 60),
    (140, 200, 70),
    (40, 120, 60),
    (40, 160, 160),
    (120, 190, 235),
    (45, 75, 190),
    (120, 60, 165),
    (225, 110, 170),
    (110, 65, 40),
    (240, 240, 240),
)


def head_color(species: Species) -> Color:
    """The colour that the species has in its head and its crest."""
    return HEADS[species.tail * 6 + species.crest * 2 + species.wing]


@dataclass(frozen=True)
class Coat:
    """Two colours and the pattern in which the second lies on the first."""

    first: Color
    second: Color
    pattern: str = "plain"


@dataclass(frozen=True)
class Part:
    """One part: its index in :data:`PART_NAMES`, its shapes and its colours."""

    index: int
    shapes: tuple[Shape, ...]
    coat: Coat

    def bounds(self) -> Bounds:
        """A local rectangle that contains all shapes."""
        u0, v0, u1, v1 = zip(*(shape.bounds() for shape in self.shapes), strict=True)
        return min(u0), min(v0), max(u1), max(v1)

    def covers(self, u: Floats, v: Floats) -> Bools:
        """Which local points lie in any of the shapes."""
        covered = np.zeros(u.shape, np.bool_)
        for shape in self.shapes:
            covered |= shape.covers(u, v)
        return covered


def parts(bird: Bird) -> Iterator[Part]:
    """Parts from the farthest to the nearest; a later one hides an earlier one."""
    species, size, of = bird.species, bird.telling, bird.colors
    body = ("belly", "stripes", "spots", "checks")[species.pattern]
    wing = ("edge", "bars")[species.wing]
    shapes: tuple[tuple[str, tuple[Shape, ...], Coat], ...] = (
        ("tail", _tail(species.tail, size), Coat(of.tail, of.mark, ("tip", "plain")[species.tail])),
        ("legs", _LEGS, Coat(of.bare, of.bare)),
        ("body", (Ellipse((0.0, 0.0), (0.34, 0.22)),), Coat(of.body, of.mark, body)),
        ("crest", _crest(species.crest, size), Coat(of.head, of.head)),
        ("head", (Ellipse((0.29, -0.19), (0.135, 0.13)),), Coat(of.head, of.head)),
        (
            "beak",
            (Polygon(((0.40, -0.245), (0.565, -0.175), (0.40, -0.135))),),
            Coat(of.bare, of.bare),
        ),
        ("wing", _wing(species.wing, size), Coat(of.wing, of.mark, wing)),
        ("head", (Ellipse((0.335, -0.215), (0.034, 0.034)),), Coat(_WHITE, _WHITE)),
        ("head", (Ellipse((0.342, -0.215), (0.020, 0.020)),), Coat(_BLACK, _BLACK)),
    )
    for name, outline, coat in shapes:
        if outline:
            yield Part(PART_NAMES.index(name), outline, coat)


def pattern(name: str, u: Floats, v: Floats) -> Bools:
    """Where the second colour lies: (rows, columns) of the local points."""
    if name == "belly":
        return np.asarray(v > 0.05)
    if name in ("stripes", "bars"):
        return _odd(u, 0.085)
    if name == "spots":
        x, y = (np.abs(_rest(w, 0.12)) for w in (u, v))
        return np.asarray(x * x + y * y < 0.036 * 0.036)
    if name == "checks":
        return _odd(u, 0.095) ^ _odd(v, 0.095)
    if name == "edge":
        return np.asarray(v > 0.075)
    if name == "tip":
        return np.asarray(u < -0.6)
    return np.zeros(u.shape, np.bool_)


def _odd(w: Floats, width: float) -> Bools:
    return np.asarray(np.floor(w / width) % 2 == 1)


def _rest(w: Floats, width: float) -> Floats:
    return np.asarray(w - np.floor(w / width + 0.5) * width)


_WHITE: Color = (250.0, 250.0, 250.0)
_BLACK: Color = (10.0, 10.0, 10.0)

_LEGS: tuple[Shape, ...] = (
    Polygon(((-0.03, 0.15), (0.00, 0.15), (0.03, 0.37), (0.09, 0.40), (0.00, 0.40), (-0.01, 0.36))),
    Polygon(((0.09, 0.15), (0.12, 0.15), (0.15, 0.37), (0.21, 0.40), (0.12, 0.40), (0.11, 0.36))),
)


def _tail(kind: int, size: float) -> tuple[Shape, ...]:
    forked = (
        ((-0.20, -0.09), (-0.92, -0.17), (-0.70, -0.03), (-0.22, 0.03)),
        ((-0.22, -0.03), (-0.70, 0.06), (-0.94, 0.18), (-0.20, 0.09)),
    )
    fan = (((-0.20, -0.07), (-0.84, -0.17), (-0.92, 0.01), (-0.84, 0.18), (-0.20, 0.08)),)
    return tuple(_scaled(points, (-0.24, 0.0), size) for points in (fan if kind else forked))


def _crest(kind: int, size: float) -> tuple[Shape, ...]:
    spikes = (
        ((0.22, -0.27), (0.10, -0.46), (0.28, -0.30)),
        ((0.25, -0.29), (0.22, -0.52), (0.33, -0.30)),
        ((0.29, -0.29), (0.35, -0.50), (0.37, -0.28)),
    )
    if kind == 1:
        return tuple(_scaled(points, (0.28, -0.30), size) for points in spikes)
    return (Ellipse((0.24, -0.30), (0.12 * size, 0.13 * size)),) if kind == 2 else ()


def _wing(kind: int, size: float) -> tuple[Shape, ...]:
    if kind == 0:
        return (Ellipse((-0.05, 0.02), (0.17 * size, 0.12 * size)),)
    points = ((0.14, -0.08), (0.02, 0.13), (-0.46, 0.02), (-0.12, -0.09))
    return (_scaled(points, (0.0, 0.0), size),)


def _scaled(points: tuple[Point, ...], anchor: Point, size: float) -> Polygon:
    x0, y0 = anchor
    return Polygon(tuple((x0 + (x - x0) * size, y0 + (y - y0) * size) for x, y in points))
