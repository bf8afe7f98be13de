"""Readers of annotation files that several datasets have: lines, CSV, VOC XML and COCO JSON.

Whatever is wrong with a file ends in an :class:`InputError` that names the file and, where there is
one, the line.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from wsolbench.errors import InputError
from wsolbench.types import Box

RESTORE = "restore it from the dataset"
#: longest piece of a file that an error repeats
_SHOWN = 60
_GAP = re.compile(r"\s*,?\s*")

Row = list[str]


class Place(NamedTuple):
    """A line of a file."""

    file: Path
    line: int

    def error(self, problem: str, remedy: str = RESTORE) -> InputError:
        """Return an error that names the place, the problem and what to do."""
        return InputError(f"{self.file}:{self.line}: {problem}; {remedy}")


def shown(text: object) -> str:
    """Quote a piece of a file on one line, cut where it is long."""
    plain = str(text).encode("unicode_escape").decode("ascii")
    return f"'{plain[:_SHOWN]}...'" if len(plain) > _SHOWN else f"'{plain}'"


# -------------------------------------------------------------------------------------- lines


def read_text(path: Path, remedy: str = RESTORE) -> str:
    """Return a text file's content.

    Raises:
        InputError: when it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text in UTF-8; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: Path, remedy: str = RESTORE) -> list[str]:
    """Return the lines of a text file, a last one without an end included.

    Raises:
        InputError: as :func:`read_text`.
    """
    # not splitlines(), which also splits at characters that may stand in a name
    lines = read_text(path, remedy).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def numbered_lines(path: Path) -> Iterator[tuple[Place, str]]:
    """Yield the lines that are not blank, stripped, with their places.

    Raises:
        InputError: as :func:`read_text`, and when there is no such line.
    """
    found = False
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            found = True
            yield Place(path, number), line.strip()
    if not found:
        raise Place(path, 1).error("the file is empty")


def read_rows(path: Path, width: int, header: Sequence[str] = ()) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of a CSV file, with their places.

    Args:
        path: the file.
        width: fields that each row must have.
        header: what the first row must say, which is then not yielded; none where there is none.

    Raises:
        InputError: as :func:`read_text`, and for another header or number of fields.
    """
    rows = csv.reader(read_lines(path), strict=True)
    expected = ",".join(header)
    try:
        for row in rows:
            fields = [text.strip() for text in row]
            place = Place(path, rows.line_num)
            if header and place.line == 1:
                if fields != list(header):
                    raise place.error(f"expected the header {expected}, got {shown(','.join(row))}")
            elif any(fields):
                if len(fields) != width:
                    raise place.error(f"expected {width} fields, got {shown(','.join(row))}")
                yield place, fields
    except csv.Error as error:
        raise Place(path, rows.line_num).error(f"no CSV: {error}") from error


def numbers(place: Place, texts: Sequence[str], count: int) -> list[float]:
    """Return ``count`` finite numbers.

    Raises:
        InputError: when there are more or fewer, or one is none.
    """
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise place.error(f"expected {count} numbers, got {shown(' '.join(texts))}")
    return values


def number_in(place: Place, text: str, allowed: range) -> int:
    """Return a whole number of a range.

    Raises:
        InputError: when it is none of them.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) in allowed):
        span = f"{allowed[0]} to {allowed[-1]}" if allowed else "nothing"
        raise place.error(f"expected a number from {span}, got {shown(text)}")
    return int(text)


def plain_path(place: Place, text: str) -> str:
    """Return a relative path that stays below its folder: ids name files of ours too.

    Raises:
        InputError: when it is absolute, has ``..``, or is spelt in a roundabout way.
    """
    path = PurePosixPath(text)
    plain = str(path) == text and not path.is_absolute() and ".." not in path.parts
    if not plain or text == "." or not text.isprintable():
        raise place.error(f"{shown(text)} is no plain path")
    return text


# -------------------------------------------------------------------------------------- boxes


def corners(place: Place, texts: Sequence[str]) -> Box:
    """Return a box given as x0, y0, x1, y1.

    Raises:
        InputError: when it is not four numbers, or ends before it begins.
    """
    x0, y0, x1, y1 = numbers(place, texts, 4)
    if x1 < x0 or y1 < y0:
        raise place.error(f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} ends before it begins")
    return x0, y0, x1, y1


def clipped(box: Box, size: tuple[int, int]) -> Box:
    """Bring a box into an image of ``size`` = (w, h): corners in order, within 0 and w-1, h-1.

    A box of which nothing is left, or that had no area, becomes one pixel wide or high.
    """
    (x0, x1), (y0, y1) = (
        _span(box[axis], box[axis + 2], length) for axis, length in enumerate(size)
    )
    return x0, y0, x1, y1


def _span(start: float, end: float, length: int) -> tuple[float, float]:
    low, high = (min(max(v, 0.0), length - 1.0) for v in (min(start, end), max(start, end)))
    return (low, high) if high > low else (max(low - 1.0, 0.0), max(low, 1.0))


def scaled(box: Box, written: tuple[int, int], real: tuple[int, int]) -> Box:
    """Bring a box from an image size (w, h) in an annotation to that of the file."""
    x, y = real[0] / written[0], real[1] / written[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


# ---------------------------------------------------------------------------------------- VOC


@dataclass(frozen=True)
class VocObject:
    """One object of a VOC file: its name and box as written, corners in any order."""

    place: Place
    name: str
    box: Box


@dataclass(frozen=True)
class Voc:
    """A VOC file: the size (w, h) it states, or None, and its objects."""

    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def read_voc(path: Path) -> Voc:
    """Read an annotation in the XML of PASCAL VOC.

    Raises:
        InputError: when the file is no XML or lacks a name or corner; the line names the place.
    """
    parser = _VocParser(path)
    parser.read()
    objects = tuple(_voc_object(path, *found) for found in parser.objects)
    return Voc(_voc_size(parser.top), objects)


_Leaves = dict[str, tuple[Place, str]]
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _VocParser:
    """Texts of leaves by their path below the annotation, and below each object."""

    path: Path
    top: _Leaves = field(default_factory=dict)
    objects: list[tuple[int, _Leaves]] = field(default_factory=list)
    _expat: expat.XMLParserType = field(default_factory=expat.ParserCreate)
    _open: list[str] = field(default_factory=list)
    _text: str = ""

    def read(self) -> None:
        parser = self._expat
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._more
        parser.EntityDeclHandler = self._refuse
        try:
            parser.Parse(self.path.read_bytes(), True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
        except (expat.ExpatError, UnicodeError, LookupError, ValueError) as error:
            place = Place(self.path, parser.CurrentLineNumber)
            raise place.error(f"no XML ({shown(error)[1:-1]})") from error

    def _start(self, tag: str, _: Mapping[str, str]) -> None:
        self._open.append(tag)
        self._text = ""
        if len(self._open) == 2 and tag == "object":
            self.objects.append((self._expat.CurrentLineNumber, {}))

    def _end(self, _: str) -> None:
        inside = self._open[1:]
        if inside and inside[0] == "object":
            self.objects[-1][1].setdefault("/".join(inside[1:]), self._leaf())
        else:
            self.top.setdefault("/".join(inside), self._leaf())
        self._open.pop()
        self._text = ""

    def _leaf(self) -> tuple[Place, str]:
        return Place(self.path, self._expat.CurrentLineNumber), self._text.strip()

    def _more(self, text: str) -> None:
        self._text += text

    def _refuse(self, *_: object) -> None:
        raise ValueError("entities are not allowed")


def _voc_object(path: Path, line: int, leaves: _Leaves) -> VocObject:
    for name in ("name", *(f"bndbox/{corner}" for corner in _CORNERS)):
        if name not in leaves:
            raise Place(path, line).error(f"the object has no {name}")
    values = [numbers(*_single(leaves[f"bndbox/{corner}"]), 1)[0] for corner in _CORNERS]
    return VocObject(leaves["name"][0], leaves["name"][1], _as_box(values))


def _single(leaf: tuple[Place, str]) -> tuple[Place, list[str]]:
    return leaf[0], [leaf[1]]


def _as_box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1


def _voc_size(top: _Leaves) -> tuple[int, int] | None:
    if "size/width" not in top or "size/height" not in top:
        return None
    allowed = range(1, 100_000)
    width, height = (number_in(*top[f"size/{side}"], allowed) for side in ("width", "height"))
    return width, height


# --------------------------------------------------------------------------------------- COCO


def read_coco(path: Path) -> dict[str, list[tuple[Place, Box]]]:
    """Read boxes in the JSON of COCO: for each ``file_name`` its boxes x, y, x+w, y+h.

    Crowds are left out, as COCO's own evaluation leaves them out.

    Raises:
        InputError: when the file is no JSON, an entry lacks what it must have, or an annotation is
            of an image that is not listed; the line is that of the entry.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise Place(path, error.lineno).error(f"no JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise Place(path, 1).error("no JSON that can be read") from error
    names: dict[object, str] = {}
    for place, entry in _coco_entries(path, text, content, "images", ("id", "file_name")):
        names[_hashable(place, entry["id"])] = str(entry["file_name"])
    boxes: defaultdict[str, list[tuple[Place, Box]]] = defaultdict(list)
    for place, entry in _coco_entries(path, text, content, "annotations", ("image_id", "bbox")):
        name = names.get(_hashable(place, entry["image_id"]))
        if name is None:
            raise place.error(f"image {shown(entry['image_id'])} is not among the images")
        box = _coco_box(place, entry["bbox"])
        if not entry.get("iscrowd"):
            boxes[name].append((place, box))
    return dict(boxes)


def _entry_lines(text: str, key: str, count: int) -> list[int]:
    """Lines on which the entries of a list begin: JSON's own reader keeps none."""
    for start in re.finditer(rf'"{key}"\s*:\s*\[\s*', text):
        begins = _begins(text, start.end(), count)
        if begins is not None:
            lines = np.searchsorted(_line_ends(text), begins) + 1
            return [int(line) for line in lines]
    return [1] * count


def _begins(text: str, at: int, count: int) -> list[int] | None:
    """Where each of ``count`` values between commas begins; None where there are not so many."""
    begins, decoder = [], json.JSONDecoder()
    for _ in range(count):
        begins.append(at)
        try:
            _, end = decoder.raw_decode(text, at)
        except ValueError:  # the key occurs elsewhere too, over another list
            return None
        at = _GAP.match(text, end).end()  # type: ignore[union-attr]  # it matches nothing, too
    return begins


def _line_ends(text: str) -> NDArray[np.int64]:
    return np.array([match.start() for match in re.finditer("\n", text)], dtype=np.int64)


def _coco_entries(
    path: Path, text: str, content: Any, key: str, needed: Sequence[str]
) -> Iterator[tuple[Place, dict[str, Any]]]:
    listed = content.get(key) if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise Place(path, 1).error(f"there is no list '{key}'")
    lines = _entry_lines(text, key, len(listed))
    for number, entry in enumerate(listed):
        place = Place(path, lines[number])
        if not isinstance(entry, dict) or any(name not in entry for name in needed):
            raise place.error(f"{key}[{number}] needs {' and '.join(needed)}")
        yield place, entry


def _hashable(place: Place, value: object) -> object:
    if not isinstance(value, int | str):
        raise place.error(f"{shown(value)} is no id of an image")
    return value


def _coco_box(place: Place, value: object) -> Box:
    texts = [str(number) for number in value] if isinstance(value, list) else [str(value)]
    x, y, width, height = numbers(place, texts, 4)
    if width <= 0 or height <= 0:
        raise place.error(f"the box is {width:g} x {height:g} pixels")
    return x, y, x + width, y + height
