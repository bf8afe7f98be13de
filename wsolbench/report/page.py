"""The leaderboard as one HTML file: needs no server and no network, and can be handed on.

All text goes through the template engine's escaping; the page's own policy lets nothing run but the
script that it was made with, and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined

from wsolbench.analysis import ONE_SEED, Lead, lead, read_tables, shown_level
from wsolbench.columns import (
    EXTERNAL,
    FIGURE_TITLES,
    Titles,
    commit_of,
    device_of,
    interval_text,
    pretraining_text,
    size_of,
)
from wsolbench.cost_table import costs, machine
from wsolbench.errors import InputError
from wsolbench.few_shot import (
    Chart,
    Reference,
    charts,
    curve_commands,
    curve_labels,
    label_of,
    published_curves,
    steps_text,
)
from wsolbench.few_shot import notes as few_shot_notes
from wsolbench.files import write_text
from wsolbench.labels import row_labels
from wsolbench.leaderboard import Board, published, read_reported
from wsolbench.metrics import derived
from wsolbench.metrics import functional as F
from wsolbench.protocol import Figure
from wsolbench.ranking import DECIMALS, Group, Row, distinctions, full_data, groups
from wsolbench.recipe import RECIPE_NAMES
from wsolbench.report.charts import (
    Scale,
    percent_scale,
    polyline,
    positive_scale,
    short_number,
    shot_places,
)
from wsolbench.report.curves import row_curve
from wsolbench.report.gallery import Strip, gallery
from wsolbench.report.pictures import Album, Allowed, album, heat_uri, jpeg_uri
from wsolbench.results import MEASURED, Result
from wsolbench.tables import (
    UNDEFINED,
    Intervals,
    best_two,
    borrowed,
    classifier_kinds,
    figure_title,
    heading,
    notes,
    repeat,
    spread,
)

FILE_NAME = "leaderboard.html"
#: colours and dashes that the page tells lines apart by
_COLOURS, _DASHES = 8, 3
#: what a row costs: field of its costs, title, and which way is better
_COSTS = (
    ("parameters", "parameters", "fewer is cheaper"),
    ("macs", "multiply-accumulates an image", "fewer is cheaper"),
    ("train_images_per_second", "images trained on a second", "more is cheaper"),
    ("inference_images_per_second", "images localized a second", "more is cheaper"),
)
#: curve, title of its chart
_CURVES = (
    ("box_acc_30", "Box accuracy at IoU 0.3"),
    ("box_acc_50", "Box accuracy at IoU 0.5"),
    ("box_acc_70", "Box accuracy at IoU 0.7"),
)
_UNIT = Scale(0, 1)


@dataclass(frozen=True)
class Source:
    """Where the pictures of a page come from, and which of them it may show."""

    root: Path
    allowed: Allowed


def write_page(folder: Path, board: Board, titles: Titles, source: Source) -> list[str]:
    """Write ``leaderboard.html`` beside the other leaderboard.

    Args:
        folder: of results.
        board: what is in it.
        titles: name of a method to its title.
        source: of pictures.

    Returns:
        One line for each file of maps that cannot be used; the page is made of the others.

    Raises:
        InputError: when the folder cannot be written to.
    """
    problems: list[str] = []
    page = _Page(folder, board, titles, source)
    made = [page.group(number, group, problems) for number, group in enumerate(page.groups, 1)]
    text = _template().render(
        groups=made,
        problems=[*board.problems, *problems],
        made_from=made_from(folder),
        newest=max((r.created for r in board.results), default=None),
        records=len(board.results),
        few_shot=[page.few_shot(n, c) for n, c in enumerate(charts(board.results), 1)],
        published=_published(titles),
        filters=_filters(made),
        style=_part("leaderboard.css"),
        script=_part("leaderboard.js"),
        style_hash=_policy_hash(_part("leaderboard.css")),
        script_hash=_policy_hash(_part("leaderboard.js")),
        kinds=derived.KINDS,
    )
    write_text(folder / FILE_NAME, text)
    return problems


def made_from(folder: Path) -> str:
    """SHA-256 over the records of a folder and the parts of the page: what a page was made from."""
    digest = hashlib.sha256()
    for file in sorted((folder / MEASURED).glob("*.json")):
        if file.is_file():  # else it is among the problems
            digest.update(file.read_bytes())
    for name in ("leaderboard.html", "leaderboard.css", "leaderboard.js"):
        digest.update(_part(name).encode("utf-8"))
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------- template


def _part(name: str) -> str:
    return (resources.files("wsolbench") / "templates" / name).read_text("utf-8")


def _template() -> Any:
    environment = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short_number
    return environment.get_template("leaderboard.html")


def _policy_hash(text: str) -> str:
    """How the page's policy names the one script or style that it allows."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


# ------------------------------------------------------------------------------------------ groups


class _Page:
    def __init__(self, folder: Path, board: Board, titles: Titles, source: Source) -> None:
        self.folder, self.board, self.titles, self.source = folder, board, titles, source
        self.groups = sorted(groups(full_data(board.results)), key=_order)
        self.distinctions = distinctions(self.groups)
        # the most frequent first, which get a colour and an unbroken line of their own
        count = Counter(r.recipe.method for r in board.results)
        methods = sorted(count, key=lambda method: (-count[method], method))
        self.places = {method: n for n, method in enumerate(methods)}

    def _look(self, method: str, before: int) -> dict[str, int]:
        """Colour and dashes of a line, which tell methods of one colour and rows of one method."""
        place = self.places[method]
        return {"colour": place % _COLOURS, "dash": (place // _COLOURS + before) % _DASHES}

    def group(self, number: int, group: Group, problems: list[str]) -> dict[str, Any]:
        """All that the template says of a group."""
        first, ranked = group.first, group.ranked_by
        labels = row_labels(group, self.titles)
        rows = [self._row(f"g{number}r{n + 1}", group, n, labels[n]) for n in range(len(labels))]
        scale = percent_scale(_forest_values(group, self.board.intervals))
        return {
            "id": f"g{number}",
            "title": first.dataset.title,
            "regime": first.recipe.name,
            "protocol": first.protocol.title,
            "apart": self.distinctions[number - 1],
            "heading": heading(group),
            "data": size_of(first.dataset),
            "notes": notes(group, self.board.intervals),
            "ranked": None if ranked is None else figure_title(group, ranked),
            "verdict": self._verdict(group, labels),
            "columns": [
                {"title": FIGURE_TITLES[f] + EXTERNAL * kind, "oracle": f in group.oracle}
                for f, kind in _columns(group)
            ],
            "dead": any(row.dead_maps for row in group.rows),
            "rows": rows,
            "forest": _forest(group, scale, self.board.intervals),
            "scale": scale,
            "charts": _curve_charts(group),
            "answers": self._answers(group),
            "costs": _cost_charts(group, scale),
            "gallery": self._gallery(group, problems),
        }

    def few_shot(self, number: int, chart: Chart) -> dict[str, Any]:
        """All that the template says of accuracy over the number of images a class."""
        figure = chart.figures[0]
        references = [r for r in published_curves(chart.first.recipe.dataset) if r.figure == figure]
        known = [point.row.mean(figure) for curve in chart.curves for point in curve.points]
        known += [value for reference in references for _, value in reference.points]
        y = percent_scale([value for value in known if value is not None])
        places = shot_places([*chart.shots, *(k for r in references for k, _ in r.points)])
        return {
            "id": f"f{number}",
            "title": chart.first.dataset.title,
            "regime": chart.first.recipe.name,
            "protocol": chart.first.protocol.title,
            "apart": steps_text(chart),
            "notes": few_shot_notes(chart),
            "figure": chart.title(figure),
            "y": y,
            "ticks": [(label_of(shots), place) for shots, place in places.items()],
            "curves": [
                self._few_curve(n, label, chart, places, y)
                for n, label in enumerate(curve_labels(chart, self.titles))
            ],
            "references": [_reference(reference, places, y) for reference in references],
        }

    def _few_curve(
        self, number: int, label: str, chart: Chart, places: Mapping[int | None, float], y: Scale
    ) -> dict[str, Any]:
        curve, figure = chart.curves[number], chart.figures[0]
        method = curve.first.recipe.method
        before = [c for c in chart.curves[:number] if c.first.recipe.method == method]
        marks = []
        for point in curve.points:
            mean, std = point.row.mean(figure), point.row.std(figure) or 0.0
            if mean is not None:
                ends = [100 - y.at(min(max(v, y.low), y.high)) for v in (mean - std, mean + std)]
                marks.append(
                    {
                        "x": places[point.shots],
                        "y": 100 - y.at(mean),
                        "ends": ends,
                        "shots": label_of(point.shots),
                        "text": spread(point.row, figure=figure),
                        "runs": len(point.row.results),
                        "records": [_record(result) for result in point.row.results],
                    }
                )
        return {
            "label": label,
            **self._look(method, len(before)),
            "marks": marks,
            "commands": curve_commands(curve),
        }

    def _row(self, name: str, group: Group, number: int, label: str) -> dict[str, Any]:
        row, method = group.rows[number], group.rows[number].first.recipe.method
        first = row.first
        before = [r for r in group.rows[:number] if r.first.recipe.method == method]
        return {
            "id": name,
            "rank": row.rank,
            "label": label,
            "ranked": None if group.ranked_by is None else spread(row, figure=group.ranked_by),
            "backbone": first.recipe.backbone,
            "supervision": first.supervision,
            "pretraining": pretraining_text(first, UNDEFINED),
            "seen": pretraining_text(first, UNDEFINED).partition(" (")[0],  # backbones have the tag
            "device": device_of(first),
            "key": first.recipe_key,
            "epochs": first.recipe.epochs if first.recipe.trained else None,
            "batch": first.recipe.batch_size if first.recipe.trained else None,
            **self._look(method, len(before)),
            "cells": [self._cell(group, number, *column) for column in _columns(group)],
            "dead": row.dead_maps,
            "threshold": row.threshold(),
            "source": first.threshold_source,
            "records": [_record(result) for result in row.results],
            "commands": repeat(row),
            "cost": costs(row.results),
            "machine": machine(first.environment),
        }

    def _cell(self, group: Group, number: int, figure: Figure, kind: bool) -> dict[str, Any]:
        row = group.rows[number]
        if borrowed(row, figure) is not kind:
            return {"value": None, "mean": UNDEFINED, "std": "", "interval": None, "place": None}
        found = self.board.intervals.get(row.identities, {}).get(figure)
        mean, _, std = spread(row, figure=figure).partition(" ± ")
        return {
            "value": row.mean(figure),
            "mean": mean,
            "std": std,
            "interval": None if found is None else interval_text(found),
            "place": best_two(group, figure).get(number),
        }

    def _verdict(self, group: Group, labels: Sequence[str]) -> str:
        """In one sentence, which row is ahead and by how much."""
        ranked = [row for row in group.rows if row.rank is not None]  # which come first
        figure = group.ranked_by
        if figure is None or not ranked:
            return "There is no figure to rank by."
        if len(ranked) == 1:
            return f"Only {labels[0]} was run here."
        found = lead(ranked[0], ranked[1], figure, self.folder)
        if found is not None and found.seeds == tuple(len(row.results) for row in ranked[:2]):
            return _lead_text(labels, found)
        gap = (ranked[0].mean(figure) or 0) - (ranked[1].mean(figure) or 0)
        ahead = f"{labels[0]} leads {labels[1]} by {gap:.1f} points."
        if found is None:
            return f"{ahead} How sure that is, no usable table of their images tells."
        low, high = found.interval
        seeds = f"{found.seeds[0]} of {labels[0]}, {found.seeds[1]} of {labels[1]}"
        return (
            f"{ahead} The seeds that keep a table of images ({seeds}) are {found.points:.1f} "
            f"points apart, 95% interval {low:.1f} to {high:.1f}.{_caveat(found)}"
        )

    def _answers(self, group: Group) -> list[dict[str, Any]]:
        """Share of each kind of answer in percent, by row, mean over its seeds."""
        found = []
        for number, row in enumerate(group.rows):
            shares = _kinds(row, self.folder)
            if shares is not None:
                found.append({"row": number, "parts": _stacked(shares)})
        return found

    def _gallery(self, group: Group, problems: list[str]) -> dict[str, Any] | None:
        found = gallery(group, self.folder, problems)
        if found is None:
            return None
        names = [strip.image_id for strip in found.strips]
        pictures = album(group.first, names, self.source.root, self.source.allowed)
        return {
            "frame": found.frame,
            "rows": found.rows,
            "why": pictures.why,
            "free": pictures.free,
            "strips": [_strip(strip, pictures) for strip in found.strips],
        }


def _reference(
    reference: Reference, places: Mapping[int | None, float], y: Scale
) -> dict[str, Any]:
    points = [(places[shots], 100 - y.at(value)) for shots, value in reference.points]
    return {"label": reference.label, "source": reference.source, "points": points}


def _order(group: Group) -> tuple[Any, ...]:
    """Thresholds from held-out images first, then the regimes, then by name."""
    held_out = any(r.threshold_source == "held-out" for r in group.results)
    data = group.first.dataset
    regime = RECIPE_NAMES.index(group.first.recipe.name)
    return not held_out, regime, data.title, data.fingerprint, group.first.protocol.name


def _lead_text(names: Sequence[str], found: Lead) -> str:
    low, high = found.interval
    interval = f"95% interval {low:.1f} to {high:.1f}"
    if found.shown:
        ahead = f"{names[0]} is ahead of {names[1]} by {found.points:.1f} points ({interval})."
    else:
        ahead = (
            f"{names[0]} is not shown to be ahead of {names[1]}: "
            f"{found.points:.1f} points between them, {interval}."
        )
    return ahead + _caveat(found)


def _caveat(found: Lead) -> str:
    return f" {ONE_SEED}" if min(found.seeds) == 1 else ""


def _record(result: Result) -> dict[str, Any]:
    name = result.file_name()
    return {
        "seed": result.recipe.seed,
        "href": f"{MEASURED}/{name}",
        "name": name,
        "commit": commit_of(result.environment),
        "created": result.created.date().isoformat(),
        "device": result.environment.device,
        "threshold": result.threshold,
        "figures": [
            (FIGURE_TITLES[figure], f"{value:.{DECIMALS}f}")
            for figure, value in result.figures.items()
        ],
    }


# ------------------------------------------------------------------------------------------ charts


def _columns(group: Group) -> list[tuple[Figure, bool]]:
    """Figures, each once or, where some rows have another run's class scores, twice."""
    return [(f, kind) for f in group.figures for kind in classifier_kinds(group, f)]


def _forest_values(group: Group, intervals: Intervals) -> list[float]:
    """All values that the plot of a group must hold."""
    figure = group.ranked_by
    if figure is None:
        return []
    values = [r.figures[figure] for r in group.results if figure in r.figures]
    values += [r.figures["max_box_acc"] for r in group.results if "max_box_acc" in r.figures]
    for row in group.rows:
        values += intervals.get(row.identities, {}).get(figure, ())
    return values


def _forest(group: Group, scale: Scale, intervals: Intervals) -> list[dict[str, Any]]:
    """Each row's figure with its interval and its seeds, and the best a threshold could give."""
    marks: list[dict[str, Any]] = []
    figure = group.ranked_by
    for row in group.rows:
        mean = None if figure is None else row.mean(figure)
        if figure is None or mean is None:
            marks.append({})
            continue
        oracle = row.mean("max_box_acc") if figure == "gt_known_loc" else None
        found = intervals.get(row.identities, {}).get(figure)
        marks.append(
            {
                "at": scale.at(mean),
                "hollow": figure in group.oracle,
                "interval": found and [scale.at(value) for value in found],
                "seeds": [scale.at(r.figures[figure]) for r in row.results],
                "oracle": None if oracle is None else scale.at(oracle),
            }
        )
    return marks


def _curve_charts(group: Group) -> list[dict[str, Any]]:
    """One chart a curve: all rows' means over their seeds, and where their thresholds are."""
    charts = []
    for curve, title in _CURVES:
        lines = [line for n, row in enumerate(group.rows) if (line := _line(n, row, curve))]
        if lines:
            charts.append({"title": title, "lines": lines, "x": _UNIT, "y": Scale(0, 100)})
    return charts


def _line(number: int, row: Row, curve: str) -> dict[str, Any] | None:
    found = row_curve(row, curve)
    if found is None:
        return None
    levels, values = found
    mean, y = values.mean(axis=0), Scale(0, 100)
    points = [None if np.isnan(value) else value for value in mean.tolist()]
    pieces = polyline(levels.tolist(), points, _UNIT, y)
    return {"row": number, "pieces": pieces, "mark": _mark(row.threshold(), levels, mean, y)}


def _mark(
    threshold: float | None, levels: F.Floats, mean: F.Floats, y: Scale
) -> tuple[float, float] | None:
    """Where a curve is at the threshold in use."""
    if threshold is None:
        return None
    nearest = int(np.argmin(np.abs(levels - threshold)))
    if np.isnan(mean[nearest]):
        return None
    return _UNIT.at(float(levels[nearest])), 100 - y.at(float(mean[nearest]))


def _kinds(row: Row, folder: Path) -> list[float] | None:
    if not all(result.table for result in row.results):
        return None
    try:
        tables = read_tables(row, folder)
    except InputError:  # which the intervals report
        return None
    counts = [
        np.bincount(derived.kinds(t, shown_level(r, t)), minlength=len(derived.KINDS)) / len(t)
        for r, t in zip(row.results, tables, strict=True)
    ]
    return [100 * float(share) for share in np.mean(counts, axis=0)]


def _stacked(shares: Sequence[float]) -> list[dict[str, float]]:
    starts = np.cumsum([0.0, *shares])
    return [
        {"from": round(float(start), 3), "share": round(share, 3)}
        for start, share in zip(starts, shares, strict=False)
    ]


def _cost_charts(group: Group, y: Scale) -> list[dict[str, Any]]:
    charts = []
    for name, title, hint in _COSTS:
        figure = group.ranked_by
        points = []
        for number, row in enumerate(group.rows):
            cost = getattr(costs(row.results), name)
            mean = None if figure is None else row.mean(figure)
            if mean is not None and cost:
                points.append((number, cost, mean))
        if points:
            x = positive_scale([cost for _, cost, _ in points])
            marks = [
                {"row": n, "x": x.at(cost), "y": 100 - y.at(mean), "cost": cost, "mean": mean}
                for n, cost, mean in points
            ]
            charts.append({"title": title, "hint": hint, "marks": marks, "x": x, "y": y})
    return charts


# ---------------------------------------------------------------------------------------- pictures


def _strip(strip: Strip, pictures: Album) -> dict[str, Any]:
    picture = pictures.pictures.get(strip.image_id)
    return {
        "name": strip.image_id,
        "title": picture.title if picture else f"class {strip.label}",
        "ratio": picture.ratio if picture else 1.0,
        "picture": jpeg_uri(picture.pixels) if picture else None,
        "true": [_rect(box) for box in strip.true],
        "failures": strip.failures,
        "answers": [
            {
                "row": answer.row,
                "box": _rect(answer.box),
                "iou": answer.iou,
                "kind": answer.kind,
                "right": answer.right,
                "dead": answer.dead,
                "map": None if answer.score_map is None else heat_uri(answer.score_map),
            }
            for answer in strip.answers
        ],
    }


def _rect(box: Sequence[float]) -> dict[str, float]:
    x0, y0, x1, y1 = box
    return {"x": x0, "y": y0, "width": max(x1 - x0, 0), "height": max(y1 - y0, 0)}


# ------------------------------------------------------------------------------------- other parts


def _published(titles: Titles) -> dict[str, Any]:
    table = published(read_reported(), set(titles.values()))
    columns = [str(column) for column in table]
    return {
        "columns": columns,
        "figures": [title for title in FIGURE_TITLES.values() if title in columns],
        "rows": table.to_numpy().tolist(),
    }


def _filters(made: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    def values(name: str) -> list[str]:
        return sorted({group[name] for group in made})

    backbones = sorted({row["backbone"] for group in made for row in group["rows"]})
    return {
        "dataset": values("title"),
        "regime": values("regime"),
        "protocol": values("protocol"),
        "backbone": backbones,
    }
