"""The same images with every method's map and box, failures first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsolbench.analysis import shown_level
from wsolbench.errors import InputError
from wsolbench.examples import Examples, chosen
from wsolbench.metrics import derived
from wsolbench.metrics import functional as F
from wsolbench.metrics.image_table import ImageTable
from wsolbench.ranking import Group, Row
from wsolbench.results import Result, read_examples, read_table

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Answer:
    """What one seed of a row says of one image.

    Attributes:
        row: number of the row in its group.
        box: in pixels of the frame.
        kind: one of :data:`wsolbench.metrics.derived.KINDS`.
        right: whether the box is, whatever the class.
        dead: whether the map is constant or not finite, so that the box says nothing.
        score_map: (h, w) uint8, see :class:`wsolbench.examples.Examples`; None without one.
    """

    row: int
    box: Corners
    iou: float
    kind: str
    right: bool
    dead: bool
    score_map: NDArray[np.uint8] | None


@dataclass(frozen=True, eq=False)
class Strip:
    """One image and what every row says of it.

    Attributes:
        true: true boxes in pixels of the frame.
        label: number of the class.
        failures: how many ranked rows have a wrong box.
    """

    image_id: str
    label: int
    true: tuple[Corners, ...]
    answers: tuple[Answer, ...]
    failures: int


@dataclass(frozen=True, eq=False)
class Gallery:
    """Strips, those that most methods fail at first.

    Attributes:
        frame: side of the frame in pixels.
        rows: numbers of the rows that are shown.
    """

    frame: int
    rows: tuple[int, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True, eq=False)
class _Shown:
    """The first seed of a row that keeps examples."""

    number: int
    ranked: bool
    table: ImageTable
    index: int
    kinds: F.Ints
    examples: Examples | None


def gallery(group: Group, folder: Path, problems: list[str]) -> Gallery | None:
    """Gather the examples of a group; None where no row kept any.

    Images are those that all rows with a table were scored on.

    Args:
        group: of a results folder.
        folder: that folder.
        problems: takes one line for each file of maps that cannot be used.
    """
    shown = [_shown(number, row, folder, problems) for number, row in enumerate(group.rows)]
    return _gallery([s for s in shown if s is not None])


def _gallery(shown: Sequence[_Shown]) -> Gallery | None:
    if not any(s.examples for s in shown):
        return None
    common = set.intersection(*(set(s.table.image_id) for s in shown))
    strips = [_strip(name, shown) for name in chosen(common)]
    strips.sort(key=lambda strip: (-strip.failures, sum(a.iou for a in strip.answers)))
    frame = shown[0].table.facts.frame
    return Gallery(frame, tuple(s.number for s in shown), tuple(strips))


def _shown(number: int, row: Row, folder: Path, problems: list[str]) -> _Shown | None:
    with_table = [r for r in row.results if r.table] or [row.first]
    result = next((r for r in with_table if r.examples), with_table[0])
    try:
        table = read_table(result, folder)
    except InputError:  # which the intervals report
        return None
    index = shown_level(result, table)
    kinds = derived.kinds(table, index)
    examples = _examples(result, folder, problems)
    return _Shown(number, row.rank is not None, table, index, kinds, examples)


def _examples(result: Result, folder: Path, problems: list[str]) -> Examples | None:
    if result.examples is None:
        return None
    try:
        return read_examples(result, folder)
    except InputError as error:
        problems.append(str(error))
        return None


def _strip(name: str, shown: Sequence[_Shown]) -> Strip:
    table = shown[0].table
    place = table.image_id.index(name)
    answers = tuple(_answer(name, s) for s in shown)
    return Strip(
        image_id=name,
        label=int(table.label[place]),
        true=tuple(_corners(box) for box in table.true_by_image[place]),
        answers=answers,
        failures=sum(s.ranked and not a.right for s, a in zip(shown, answers, strict=True)),
    )


def _answer(name: str, shown: _Shown) -> Answer:
    table = shown.table
    place = table.image_id.index(name)
    iou = float(table.iou[table.at(shown.index)][place])
    maps = shown.examples.maps if shown.examples else {}
    return Answer(
        row=shown.number,
        box=_corners(table.box(shown.index)[place]),
        iou=iou,
        kind=derived.KINDS[shown.kinds[place]],
        right=iou >= table.facts.iou,
        dead=bool(table.dead[place]),
        score_map=maps.get(name),
    )


def _corners(box: F.Floats) -> Corners:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1
