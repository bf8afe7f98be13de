"""Figures for a paper: a grid of pictures, curves over the threshold or over few images, a table.

Each is of the comparison that one record stands in. Drawings are written as PDF and PNG, a table as
LaTeX; the same records give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from wsolbench import few_shot, tables
from wsolbench.analysis import row_intervals
from wsolbench.columns import Titles
from wsolbench.errors import InputError, did_you_mean
from wsolbench.examples import chosen
from wsolbench.files import write_atomically, write_text
from wsolbench.labels import row_labels
from wsolbench.protocol import Figure
from wsolbench.ranking import Group, Row, distinctions, full_data, groups
from wsolbench.report.curves import row_curve
from wsolbench.report.gallery import Answer, Corners, Strip, gallery
from wsolbench.report.pictures import Album, Picture, album, heat_colours
from wsolbench.results import Result, load_results, read_result, records_folder

T = TypeVar("T")
Kind = Literal["grid", "curve", "few-shot", "table"]
#: images of a grid that names none
IMAGES = 6
_CURVE = "box_acc_50"
#: Okabe and Ito's colours, which all readers can tell apart
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_RIGHT, _WRONG, _TRUE = "#41b6ff", "#ff7a1a", "#ffffff"
_STYLE: Any = {
    "font.size": 8,
    "pdf.fonttype": 42,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_DPI = 300


def draw(
    kind: Kind,
    record: Path,
    out: Path,
    titles: Titles,
    root: Path,
    methods: Sequence[str] = (),
    images: Sequence[str] = (),
) -> list[Path]:
    """Draw a figure of the comparison that a record stands in.

    Args:
        kind: which figure.
        record: in a results folder.
        out: folder to write to.
        titles: name of a method to its title.
        root: folder that contains the datasets' own, for pictures.
        methods: names of those to show; all if empty.
        images: names of those in a grid; chosen by their names alone if empty.

    Returns:
        The files.

    Raises:
        InputError: when the record, or what the figure needs of it, is missing; when there is no
            such method or image; when the folder cannot be written to.
    """
    result, folder = read_result(record), records_folder(record)
    results = load_results(folder).results
    known = {r.recipe.method for r in results}
    for name in methods:
        if name not in known:
            raise InputError(f"no record of a method '{name}' here{did_you_mean(name, known)}")
    shown = frozenset(methods or known)
    if kind == "table":
        text, stem = _table(result, folder, results, shown, titles)
        write_text(out / f"{stem}.tex", f"{text}\n")
        return [out / f"{stem}.tex"]
    with rc_context(_STYLE):
        if kind == "few-shot":
            chart = _chart_of(result, results, shown)
            drawing, apart = _few_shot(chart, titles), few_shot.steps_text(chart)
        else:
            group, apart = _group_of(result, results, shown)
            grid = kind == "grid"
            drawing = _grid(group, folder, titles, root, images) if grid else _curve(group, titles)
        stem = _stem(kind, result, apart)
        return [_save(drawing, out / f"{stem}.{ending}") for ending in ("pdf", "png")]


def _table(
    result: Result,
    folder: Path,
    results: Sequence[Result],
    methods: Collection[str],
    titles: Titles,
) -> tuple[str, str]:
    """A record's comparison, or its curves over few images, as LaTeX, and the file's name."""
    if result.recipe.shots is not None:
        chart = _chart_of(result, results, methods)
        stem = _stem("few-shot-table", result, few_shot.steps_text(chart))
        return few_shot.latex(chart.results, titles), stem
    group, apart = _group_of(result, results, methods)
    intervals, _ = row_intervals(group.results, folder)
    return tables.latex(group.results, titles, intervals), _stem("table", result, apart)


def _stem(kind: str, result: Result, apart: str) -> str:
    """A file name that no other comparison has which ``apart`` tells from this one."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", apart)
    parts = kind, result.recipe.dataset, result.recipe.name, result.protocol.name, words
    return "-".join(filter(None, parts))


def _save(drawing: Drawing, file: Path) -> Path:
    ending = file.suffix[1:]
    metadata = {"CreationDate": None} if ending == "pdf" else {"Software": None}
    write_atomically(
        file,
        lambda stream: drawing.savefig(
            stream, format=ending, dpi=_DPI, bbox_inches="tight", metadata=metadata
        ),
    )
    return file


def _group_of(
    result: Result, results: Sequence[Result], methods: Collection[str]
) -> tuple[Group, str]:
    """The comparison that a record stands in, and what tells it from others like it."""
    found = groups(full_data(results))
    for group, apart in zip(found, distinctions(found), strict=True):
        if result.identity() in {r.identity() for r in group.results}:
            rows = tuple(row for row in group.rows if row.first.recipe.method in methods)
            return Group(_some(rows, methods)), apart
    raise InputError("a training on few images a class stands in 'figure few-shot' alone")


def _some(members: tuple[T, ...], methods: Collection[str]) -> tuple[T, ...]:
    if not members:
        raise InputError(f"{', '.join(sorted(methods))}: not in this record's comparison")
    return members


# ------------------------------------------------------------------------------------------- grid


def _grid(group: Group, folder: Path, titles: Titles, root: Path, images: Sequence[str]) -> Drawing:
    problems: list[str] = []
    found = gallery(group, folder, problems)
    if found is None:
        more = f": {problems[0]}" if problems else ""
        raise InputError(f"no record of this comparison keeps example maps; run again{more}")
    strips = _wanted({strip.image_id: strip for strip in found.strips}, images)
    names = [strip.image_id for strip in strips]
    pictures = album(group.first, names, root, "all")
    if not pictures.pictures:
        raise InputError(f"{pictures.why} Name the folder of the data with --data-root".strip())
    labels = row_labels(group, titles)
    return _draw_grid(strips, pictures, [labels[n] for n in found.rows], found.frame)


def _wanted(strips: dict[str, Strip], images: Sequence[str]) -> list[Strip]:
    for name in images:
        if name not in strips:
            raise InputError(f"no map of an image '{name}' is kept{did_you_mean(name, strips)}")
    return [strips[name] for name in images or chosen(strips)[:IMAGES]]


def _draw_grid(
    strips: Sequence[Strip], pictures: Album, labels: Sequence[str], frame: int
) -> Drawing:
    rows, columns = len(strips), len(labels) + 1
    drawing = Drawing(figsize=(1.15 * columns, 1.15 * rows))
    axes = drawing.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.04})
    for across, strip in zip(axes, strips, strict=True):
        picture = pictures.pictures[strip.image_id]
        _tile(across[0], picture, frame, strip.true, None)
        for axis, answer in zip(across[1:], strip.answers, strict=True):
            _tile(axis, picture, frame, strip.true, answer)
    for axis, label in zip(axes[0], ["true box", *labels], strict=True):
        axis.set_title(label.replace(", ", "\n"), fontsize=7)
    return drawing


def _tile(
    axis: Axes, picture: Picture, frame: int, true: Sequence[Corners], answer: Answer | None
) -> None:
    whole = (0, frame, frame, 0)
    axis.imshow(picture.pixels, extent=whole, interpolation="antialiased")
    if answer is not None and answer.score_map is not None:
        heat = heat_colours(256)[answer.score_map]
        axis.imshow(heat, extent=whole, interpolation="bilinear", alpha=0.55)
    for box in true:
        _box(axis, box, _TRUE, "--")
    if answer is not None:
        _box(axis, answer.box, _RIGHT if answer.right else _WRONG, "-")
        axis.set_xlabel(f"IoU {answer.iou:.2f}", fontsize=6, labelpad=1.5)
    axis.set(xlim=(0, frame), ylim=(frame, 0), xticks=[], yticks=[])
    axis.set_aspect(1 / picture.ratio)
    axis.spines[:].set_visible(False)


def _box(axis: Axes, box: Corners, colour: str, dashes: str) -> None:
    x0, y0, x1, y1 = box
    # inside by a line's width: a box along the edge would be cut in half
    for width, edge, style in ((2.2, "black", "-"), (1.2, colour, dashes)):
        shape = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, lw=width, ec=edge, ls=style)
        axis.add_patch(shape)


# ------------------------------------------------------------------------------------------- curve


def _curve(group: Group, titles: Titles) -> Drawing:
    drawing = Drawing(figsize=(3.4, 2.5))
    axis = drawing.subplots()
    labels = row_labels(group, titles)
    drawn = [_line(axis, n, row, label) for n, (row, label) in enumerate(_pairs(group, labels))]
    if not any(drawn):
        raise InputError("no record of this comparison keeps curves of box accuracy")
    axis.set(xlabel="threshold", ylabel="box accuracy (%), IoU ≥ 0.5", xlim=(0, 1), ylim=(0, 100))
    _legend(axis)
    return drawing


def _legend(axis: Axes) -> None:
    # beside the curves, which may go anywhere
    axis.legend(frameon=False, fontsize=6.5, loc="upper left", bbox_to_anchor=(1, 1))


def _look(number: int) -> tuple[str, str]:
    """Colour and dashes that tell a line from others."""
    return _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]


def _pairs(group: Group, labels: Sequence[str]) -> list[tuple[Row, str]]:
    return list(zip(group.rows, labels, strict=True))


def _line(axis: Axes, number: int, row: Row, label: str) -> bool:
    """Draw the mean over a row's seeds, their spread and the threshold; False without curves."""
    found = row_curve(row, _CURVE)
    if found is None:
        return False
    levels, values = found
    mean = values.mean(axis=0)
    colour, style = _look(number)
    axis.plot(levels, mean, style, color=colour, lw=1.3, label=label)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axis.fill_between(levels, mean - std, mean + std, color=colour, alpha=0.18, lw=0)
    threshold = row.threshold()
    if threshold is not None:
        height = mean[np.argmin(np.abs(levels - threshold))]
        axis.plot([threshold], [height], "o", color=colour, mec="white", ms=5)
    return True


# ---------------------------------------------------------------------------------------- few shot


def _chart_of(
    result: Result, results: Sequence[Result], methods: Collection[str]
) -> few_shot.Chart:
    for chart in few_shot.charts(results):
        if result.identity() in {r.identity() for r in chart.results}:
            kept = tuple(c for c in chart.curves if c.first.recipe.method in methods)
            return few_shot.Chart(_some(kept, methods))
    raise InputError("the record stands in no curve over few images a class; run with --shots")


def _few_shot(chart: few_shot.Chart, titles: Titles) -> Drawing:
    drawing = Drawing(figsize=(3.4, 2.5))
    axis = drawing.subplots()
    figure = chart.figures[0]
    references = [
        r for r in few_shot.published_curves(chart.first.recipe.dataset) if r.figure == figure
    ]
    shots = few_shot.ordered({*chart.shots, *(k for r in references for k, _ in r.points)})
    labels = few_shot.curve_labels(chart, titles)
    for number, (curve, label) in enumerate(zip(chart.curves, labels, strict=True)):
        _points(axis, number, curve, figure, shots.index, label)
    for reference in references:
        x = [shots.index(k) for k, _ in reference.points]
        values = [value for _, value in reference.points]
        axis.plot(x, values, ":", color="0.4", lw=1.2, marker="x", ms=4, label=reference.label)
    axis.set_xticks(range(len(shots)), [few_shot.label_of(k) for k in shots])
    axis.set(xlabel="training images a class", ylabel=f"{chart.title(figure)}, %")
    _legend(axis)
    return drawing


def _points(
    axis: Axes,
    number: int,
    curve: few_shot.Curve,
    figure: Figure,
    place: Callable[[int | None], int],
    label: str,
) -> None:
    known = [(p, mean) for p in curve.points if (mean := p.row.mean(figure)) is not None]
    x = [place(point.shots) for point, _ in known]
    spread = [point.row.std(figure) or 0.0 for point, _ in known]
    means = [mean for _, mean in known]
    colour, dashes = _look(number)
    style: dict[str, Any] = {"color": colour, "lw": 1.3, "marker": "o", "ms": 4, "capsize": 2}
    axis.errorbar(x, means, spread, label=label, linestyle=dashes, **style)
