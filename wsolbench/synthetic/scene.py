"""What is in a picture, drawn from a seed: birds, what looks like parts of birds, a background.

Random numbers come from :meth:`random.Random.random`, whose sequence Python guarantees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from wsolbench.synthetic.birds import (
    HEADS,
    Bird,
    Coat,
    Color,
    Colors,
    Part,
    Species,
    head_color,
)
from wsolbench.synthetic.shapes import Ellipse, Placement, Point, Polygon, Shape

T = TypeVar("T")

#: side of a picture in pixels
SIDE = 128


@dataclass(frozen=True)
class Knobs:
    """What makes a set of pictures harder; each variant turns one.

    Attributes:
        telling: size of the parts that tell the species; 1 for the usual one.
        context: probability that the background is the one of the species.
        birds: fewest and most birds of one species in a picture.
        cover: things in front of the bird.
    """

    telling: float = 1.0
    context: float = 0.0
    birds: tuple[int, int] = (1, 1)
    cover: int = 0


@dataclass(frozen=True)
class Thing:
    """A coloured part of no bird, before or behind the birds."""

    part: Part
    placement: Placement


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows, from the farthest to the nearest.

    Attributes:
        noise: seed of the textures.
        ground: two colours that the background's clouds are mixed from.
        behind, front: things that are no birds.
        birds: all of one species.
    """

    noise: int
    ground: tuple[Color, Color]
    behind: tuple[Thing, ...]
    birds: tuple[Bird, ...]
    front: tuple[Thing, ...]


_GROUNDS: tuple[tuple[Color, Color], ...] = (
    ((46, 92, 44), (120, 150, 70)),
    ((120, 170, 215), (225, 235, 240)),
    ((40, 90, 120), (100, 160, 170)),
    ((190, 160, 110), (225, 205, 160)),
    ((90, 70, 90), (215, 140, 90)),
    ((70, 60, 45), (140, 120, 90)),
    ((150, 190, 120), (220, 225, 150)),
    ((95, 100, 105), (165, 165, 170)),
    ((30, 50, 60), (60, 100, 70)),
    ((200, 175, 185), (235, 225, 215)),
    ((110, 60, 40), (180, 110, 60)),
    ((60, 70, 120), (140, 150, 200)),
)
_PLUMAGE: tuple[Color, ...] = (
    *HEADS,
    (60, 60, 65),
    (160, 165, 170),
    (195, 165, 130),
    (150, 95, 60),
    (95, 110, 70),
    (85, 105, 130),
)
_MARKS: tuple[Color, ...] = ((245, 240, 230), (35, 30, 30), (90, 60, 45), (240, 215, 130))
_BARE: tuple[Color, ...] = ((235, 160, 40), (70, 60, 55), (190, 70, 60), (200, 180, 120))
_PATTERNS = ("plain", "plain", "belly", "belly", "stripes", "spots", "checks")


def draw_scene(seed: str, species: Species | None, knobs: Knobs, ground: int) -> Scene:
    """Draw a scene.

    Args:
        seed: any text; the same one gives the same scene everywhere.
        species: of all its birds; None for a picture without.
        knobs: how hard it is.
        ground: number of the species' own background, for ``knobs.context``.
    """
    random = Random(seed)
    own = random.random() < knobs.context
    colors = _GROUNDS[ground % len(_GROUNDS)] if own else _pick(random, _GROUNDS)
    birds = () if species is None else _birds(random, species, knobs)
    return Scene(
        noise=int(random.random() * 2**32),
        ground=(_jittered(random, colors[0], 18), _jittered(random, colors[1], 18)),
        behind=tuple(_lying(random) for _ in range(_between(random, 4, 7))),
        birds=birds,
        front=tuple(_covering(random, bird) for bird in birds for _ in range(knobs.cover)),
    )


def _birds(random: Random, species: Species, knobs: Knobs) -> tuple[Bird, ...]:
    count = _between(random, *knobs.birds)
    birds: list[Bird] = []
    for _ in range(count):
        birds.append(_bird(random, species, knobs, count, birds))
    return tuple(birds)


def _bird(
    random: Random, species: Species, knobs: Knobs, count: int, others: Sequence[Bird]
) -> Bird:
    crowd = 1.0 if count == 1 else 0.55
    scale = crowd * (58 + 24 * random.random())
    center = _free_place(random, 0.55 * scale, others)
    turn = 0.36 * (random.random() - 0.5)
    flip = random.random() < 0.5
    placement = Placement(center, scale, turn, flip)
    return Bird(species, placement, _colors(random, species), knobs.telling)


def _colors(random: Random, species: Species) -> Colors:
    body, wing, tail = _distinct(random, _PLUMAGE, 3)
    return Colors(
        body=_jittered(random, body, 14),
        wing=_jittered(random, wing, 14),
        tail=_jittered(random, tail, 14),
        head=_jittered(random, head_color(species), 14),
        mark=_jittered(random, _pick(random, _MARKS), 14),
        bare=_jittered(random, _pick(random, _BARE), 10),
    )


def _free_place(random: Random, margin: float, others: Sequence[Bird]) -> Point:
    """Of some places the one that is farthest from the nearest other bird, or from the middle."""
    count, taken = 2, [(SIDE / 2, SIDE / 2)]
    if others:
        count, taken = 8, [bird.placement.center for bird in others]
    places = [(_within(random, margin), _within(random, margin)) for _ in range(count)]
    return max(places, key=lambda place: min(_distance(place, other) for other in taken))


def _within(random: Random, margin: float) -> float:
    return margin + (SIDE - 2 * margin) * random.random()


def _distance(place: Point, other: Point) -> float:
    (x0, y0), (x1, y1) = place, other
    return (x0 - x1) * (x0 - x1) + (y0 - y1) * (y0 - y1)


def _lying(random: Random) -> Thing:
    """A thing anywhere in the picture."""
    return _thing(random, 0.42, (SIDE * random.random(), SIDE * random.random()), SIDE / 2)


def _covering(random: Random, bird: Bird) -> Thing:
    """A thing that lies over some place of the bird and hides less than a fifth of it."""
    x, y = bird.placement.center
    reach = 0.8 * bird.placement.scale
    place = (x + reach * (random.random() - 0.5), y + reach * (random.random() - 0.5))
    return _thing(random, 0.22, place, bird.placement.scale)


def _thing(random: Random, largest: float, center: Point, unit: float) -> Thing:
    """A leaf, a stick or a stone in the colours and patterns of birds."""
    size = 0.1 + (largest - 0.1) * random.random()
    shape = _pick(random, (_stone, _leaf, _stick))(random, size)
    placement = Placement(center, unit, 2 * random.random() - 1, random.random() < 0.5)
    return Thing(Part(0, (shape,), _coat(random)), placement)


def _coat(random: Random) -> Coat:
    palette = _PLUMAGE if random.random() < 0.4 else tuple(c for pair in _GROUNDS for c in pair)
    first, second = _distinct(random, palette, 2)
    return Coat(
        _jittered(random, first, 18), _jittered(random, second, 18), _pick(random, _PATTERNS)
    )


def _stone(random: Random, size: float) -> Shape:
    return Ellipse((0.0, 0.0), (size, size * (0.4 + 0.6 * random.random())))


def _leaf(random: Random, size: float) -> Shape:
    corners = ((-1.0, 0.0), (-0.3, -0.4), (0.5, -0.35), (1.0, 0.05), (0.4, 0.4), (-0.4, 0.35))
    return Polygon(tuple((size * _near(random, x), size * _near(random, y)) for x, y in corners))


def _near(random: Random, x: float) -> float:
    return x + 0.3 * (random.random() - 0.5)


def _stick(random: Random, size: float) -> Shape:
    length, width = size * 2.2, 0.02 + 0.04 * random.random()
    thin = 0.6 * width
    return Polygon(((-length, -width), (length, -thin), (length, thin), (-length, width)))


def _pick(random: Random, items: Sequence[T]) -> T:
    return items[int(random.random() * len(items))]


def _distinct(random: Random, items: Sequence[T], count: int) -> list[T]:
    left = list(items)
    return [left.pop(int(random.random() * len(left))) for _ in range(count)]


def _between(random: Random, low: int, high: int) -> int:
    return low + int(random.random() * (high - low + 1))


def _jittered(random: Random, color: Color, amount: float) -> Color:
    r, g, b = (min(255.0, max(0.0, c + amount * (2 * random.random() - 1))) for c in color)
    return (r, g, b)
