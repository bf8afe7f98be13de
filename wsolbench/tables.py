"""Tables: views of records as Markdown, LaTeX and CSV.

``titles`` maps the name of a method to the title it has in tables; a method that is not installed
any more goes by its name. ``intervals`` is what :func:`wsolbench.analysis.row_intervals` returns.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from wsolbench.columns import (
    CLASSIFIED,
    EXTERNAL,
    FIGURE_TITLES,
    Titles,
    commit_of,
    device_of,
    external_classifier,
    interval_text,
    pretraining_text,
    result_text,
    size_of,
    title_of,
)
from wsolbench.cost_table import costs, machine
from wsolbench.errors import one_line
from wsolbench.files import write_text
from wsolbench.labels import COLUMNS, row_labels
from wsolbench.metrics.resampling import Interval
from wsolbench.pretraining import pretraining_kind
from wsolbench.protocol import FIGURES, Figure
from wsolbench.ranking import (
    DECIMALS,
    Group,
    Row,
    distinctions,
    full_data,
    groups,
    ranks,
)
from wsolbench.recipe import INPUTS, RecipeName
from wsolbench.results import THRESHOLDS, Identity, Result, has_own_axis

REGIMES: dict[RecipeName, str] = {
    "default": "The suite's own regime: augmentation, epochs and batch size are the same for every "
    "method.",
    "released": "Each method as its authors' code behaves, in so far as neither a row's command "
    "nor a comment in its recipe says otherwise.",
    "declared": "Each method as the flags of its authors' code say, where the code behaves "
    "otherwise.",
}
#: figures that a terminal has room for
_MAIN: tuple[Figure, ...] = ("gt_known_loc", "top1_loc", "max_box_acc_v2", "pxap", "top1_cls")
#: cell of what a row does not have
UNDEFINED = "-"
_SEED = re.compile(r"\s--seed[=\s]\s*[\d,]+")

#: intervals of a row's ranked figures, by the records of the row
Intervals = Mapping[tuple[Identity, ...], Mapping[Figure, Interval]]
NO_INTERVALS: Intervals = {}


def frame(
    results: Iterable[Result], titles: Titles, intervals: Intervals = NO_INTERVALS
) -> pd.DataFrame:
    """Return one line a row with numbers as they are, the figures of all protocols as columns."""
    lines = [
        {"group": number, **_line(group, row, titles, intervals)}
        for number, group in enumerate(groups(results), 1)
        for row in group.rows
    ]
    return pd.DataFrame(lines, columns=_LINE_COLUMNS)


def csv(results: Iterable[Result], titles: Titles, intervals: Intervals = NO_INTERVALS) -> str:
    """Return :func:`frame` as CSV; what is undefined is empty."""
    return frame(results, titles, intervals).to_csv(index=False, lineterminator="\n")


def markdown(results: Iterable[Result], titles: Titles, intervals: Intervals = NO_INTERVALS) -> str:
    """Return all groups in Markdown, each with the commands that make its rows again."""
    shown = _headed(results)
    return "\n\n".join(_markdown_group(g, head, titles, intervals) for g, head in shown)


def latex(results: Iterable[Result], titles: Titles, intervals: Intervals = NO_INTERVALS) -> str:
    """Return one table a group in LaTeX, for the package booktabs."""
    shown = _headed(results)
    return "\n\n".join(_latex_group(g, head, titles, intervals) for g, head in shown)


def terminal(results: Iterable[Result], titles: Titles) -> str:
    """Return one narrow table a group, with the main figures."""
    return "\n\n".join(_terminal_group(group, head, titles) for group, head in _headed(results))


def _headed(results: Iterable[Result]) -> list[tuple[Group, str]]:
    """The comparisons, each with a heading that no other one has."""
    found = groups(full_data(results))
    apart = (f", {text}" if text else "" for text in distinctions(found))
    return [(group, heading(group) + text) for group, text in zip(found, apart, strict=True)]


def curves_csv(results: Iterable[Result], file: Path) -> None:
    """Write the curves, one value a line; ``run`` is the name of the record's file.

    Precision and recall stand in their own order, from the highest score down, without threshold.

    Raises:
        WsolbenchError: when the file cannot be written.
    """
    columns = ["run", "protocol", "seed", "curve", "threshold", "value"]
    ordered = sorted(results, key=Result.file_name)
    parts = [_curve(r, name) for r in ordered for name in r.curves if name != THRESHOLDS]
    table = pd.concat(parts) if parts else pd.DataFrame()
    write_text(file, table.reindex(columns=columns).to_csv(index=False, lineterminator="\n"))


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str]
) -> str:
    """Return a table of escaped cells; the columns in ``numbers`` are flush right."""
    cells = [[markdown_text(cell) for cell in row] for row in rows]
    align = ["right" if column in numbers else "left" for column in columns]
    return tabulate(
        cells, [*map(markdown_text, columns)], "pipe", disable_numparse=True, colalign=align
    )


def markdown_text(text: str) -> str:
    """Escape what Markdown, its tables or HTML would take for more than text."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#])", r"\\\1", text)
    # within a word an underscore is only that, and names are read in the source too
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def latex_table(
    caption: str, columns: Sequence[str], cells: Iterable[Sequence[str]], texts: int
) -> str:
    """Return a table for the package booktabs, the first ``texts`` columns of it flush left.

    Args:
        caption, columns: plain text.
        cells: what LaTeX shall set, escaped with :func:`latex_text` where it is text.
    """
    lines = (
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * texts}{'r' * (len(columns) - texts)}}}",
        r"\toprule",
        _latex_row(map(latex_text, columns)),
        r"\midrule",
        *map(_latex_row, cells),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    )
    return "\n".join(lines)


def latex_text(text: str) -> str:
    """Escape what LaTeX would take for more than text."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


# ---------------------------------------------------------------------------------------- numbers

_LINE_COLUMNS = [
    *("group", "dataset", "dataset_title", "fingerprint", "classes", "test_images"),
    *("regime", "protocol", "protocol_version", "rank", "method", "method_title", "backbone"),
    *("pretraining", "supervision", "recipe_key", "seeds", "shots", "draws", "epochs"),
    *("iterations", "batch_size", "holdout"),
    *("precision", "device_type", "threshold", "threshold_source", "oracle"),
    *(name for figure in FIGURES for name in (figure, f"{figure}_std")),
    *("ranked_by", "interval_low", "interval_high"),
    *("machine", "parameters", "macs", "train_images_per_second", "train_memory_bytes"),
    *("inference_images_per_second", "inference_memory_bytes"),
    *("source", "classifier", "pretraining_kind", "dead_maps"),
]


def _line(group: Group, row: Row, titles: Titles, intervals: Intervals) -> dict[str, Any]:
    result, recipe, data = row.first, row.first.recipe, row.first.dataset
    line: dict[str, Any] = {
        "dataset": data.name,
        "dataset_title": data.title,
        "fingerprint": data.fingerprint,
        "classes": data.classes,
        "test_images": data.test,
        "regime": recipe.name,
        "protocol": result.protocol.name,
        "protocol_version": result.protocol.version,
        "rank": "" if row.rank is None or recipe.shots is not None else row.rank,
        "method": recipe.method,
        "method_title": result_text(result, titles),
        "backbone": recipe.backbone,
        "pretraining": result.pretraining,
        "supervision": result.supervision,
        "recipe_key": result.recipe_key,
        "seeds": " ".join(map(str, row.seeds)),
        "shots": recipe.shots,
        "draws": "" if recipe.shots is None else " ".join(map(str, row.draws)),
        "epochs": recipe.training.epochs,
        "iterations": result.iterations,
        "batch_size": recipe.batch_size,
        "holdout": recipe.holdout,
        "precision": recipe.precision,
        "device_type": result.environment.device_type,
        "threshold": row.threshold(),
        "threshold_source": result.threshold_source,
        "oracle": " ".join(sorted(group.oracle)),
    }
    for figure in FIGURE_TITLES:
        line[figure], line[f"{figure}_std"] = row.mean(figure), row.std(figure)
    inputs = recipe.inputs()
    line |= {role: inputs[role].method if role in inputs else "" for role in INPUTS}
    line["pretraining_kind"] = pretraining_kind(result.pretraining)
    line["dead_maps"] = row.dead_maps
    line["ranked_by"] = group.ranked_by or ""
    found = intervals.get(row.identities, {}).get(group.ranked_by) if group.ranked_by else None
    line["interval_low"], line["interval_high"] = found or (None, None)
    line["machine"] = machine(result.environment)
    return line | asdict(costs(row.results))


def _curve(result: Result, name: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "run": result.file_name().removesuffix(".json"),
            "protocol": result.protocol.name,
            "seed": result.recipe.seed,
            "curve": name,
            "threshold": np.nan if has_own_axis(name) else result.curves[THRESHOLDS],
            "value": result.curves[name],
        }
    )


# ------------------------------------------------------------------------------------------- text


def _describing(group: Group, titles: Titles) -> dict[str, Callable[[Row], str]]:
    """Columns that say what a row is."""
    labels = row_labels(group, titles, COLUMNS)
    names = {row.identities: label for row, label in zip(group.rows, labels, strict=True)}
    return {
        "rank": lambda row: UNDEFINED if row.rank is None else str(row.rank),
        "method": lambda row: names[row.identities],
        "backbone": lambda row: row.first.recipe.backbone,
        "pre-training": lambda row: pretraining_text(row.first, UNDEFINED),
        "supervision": lambda row: row.first.supervision,
        "precision, device": lambda row: device_of(row.first),
    }


def _measuring(group: Group, intervals: Intervals) -> dict[str, Callable[[Row], str]]:
    """Columns of numbers."""
    columns: dict[str, Callable[[Row], str]] = {
        "epochs": lambda row: _of_training(row, row.first.recipe.training.epochs),
        "batch": lambda row: _of_training(row, row.first.recipe.training.batch_size),
        "seeds": lambda row: str(len(row.results)),
    }
    for figure in group.figures:
        columns |= _figure_columns(group, figure)
        if _has_interval(group, figure, intervals):
            interval = partial(_interval, figure=figure, intervals=intervals)
            columns[f"{FIGURE_TITLES[figure]} 95%"] = interval
        if figure in group.rankings[1:]:
            columns[f"rank by {FIGURE_TITLES[figure]}"] = _ranking(group, figure)
    sources = sorted({r.threshold_source for r in group.results} - {"none"})
    if sources:
        columns[f"threshold ({', '.join(sources)})"] = _threshold
    if any(row.dead_maps for row in group.rows):
        columns["dead maps"] = lambda row: f"{row.dead_maps:g}"
    return columns


def _figure_columns(group: Group, figure: Figure) -> dict[str, Callable[[Row], str]]:
    """The column of a figure, or two where some rows have a classifier of another run."""
    title = figure_title(group, figure)
    return {
        title + EXTERNAL * kind: partial(_spread_of, figure=figure, kind=kind)
        for kind in classifier_kinds(group, figure)
    }


def classifier_kinds(group: Group, figure: Figure) -> list[bool]:
    """Whether a figure's columns are of other runs' class scores: one column or both of them."""
    return sorted({borrowed(row, figure) for row in group.rows})


def _spread_of(row: Row, *, figure: Figure, kind: bool) -> str:
    return spread(row, figure=figure) if borrowed(row, figure) is kind else UNDEFINED


def _ranking(group: Group, figure: Figure) -> Callable[[Row], str]:
    places = zip(group.rows, ranks(group.rows, figure), strict=True)
    of = {row.identities: UNDEFINED if place is None else str(place) for row, place in places}
    return lambda row: of[row.identities]


def _of_training(row: Row, value: int) -> str:
    return str(value) if row.first.recipe.training.trained else UNDEFINED


def _cells(
    group: Group, titles: Titles, intervals: Intervals
) -> tuple[list[str], list[list[str]], int]:
    """Return headings, rows of cells, and how many columns are text."""
    text, numbers = _describing(group, titles), _measuring(group, intervals)
    columns = {**text, **numbers}
    return list(columns), [[of(row) for of in columns.values()] for row in group.rows], len(text)


def figure_title(group: Group, figure: Figure) -> str:
    """A figure's title, which says where it was chosen on the evaluated images."""
    return title_of(figure, figure in group.oracle)


def spread(row: Row, *, figure: Figure) -> str:
    """Mean and, for several seeds, sample standard deviation of a row in a figure."""
    mean, std = row.mean(figure), row.std(figure)
    if mean is None:
        return UNDEFINED
    return f"{mean:.{DECIMALS}f}" + ("" if std is None else f" ± {std:.{DECIMALS}f}")


def _has_interval(group: Group, figure: Figure, intervals: Intervals) -> bool:
    return any(figure in intervals.get(row.identities, {}) for row in group.rows)


def _interval(row: Row, *, figure: Figure, intervals: Intervals) -> str:
    found = intervals.get(row.identities, {}).get(figure)
    return UNDEFINED if found is None else interval_text(found)


def _threshold(row: Row) -> str:
    value = row.threshold()
    return UNDEFINED if value is None else f"{value:.3f}"


def heading(group: Group) -> str:
    """What a group is: data, regime, protocol."""
    data, recipe = group.first.dataset, group.first.recipe
    return f"{data.title} ({size_of(data)}): regime {recipe.name}, {group.first.protocol.title}"


def notes(group: Group, intervals: Intervals) -> str:
    """Say what the rows share."""
    recipe, protocol = group.first.recipe, group.first.protocol
    sentences = [REGIMES[recipe.name]]
    if recipe.name == "default":
        sentences.append(_conditions(group.first))
    sentences.append(
        f"Protocol {protocol.name}, version {protocol.version}; "
        f"dataset {group.first.dataset.name}, fingerprint {group.first.dataset.fingerprint}."
    )
    if group.ranked_by:
        also = "".join(f", and by {figure_title(group, f)} beside it" for f in group.rankings[1:])
        sentences.append(f"Ranked by {figure_title(group, group.ranked_by)}{also}.")
    if any(row.first.saw_boxes for row in group.rows):
        sentences.append(
            "What was trained on boxes, those of the hold-out, is not weakly supervised and has no "
            "rank; its epochs are its own."
        )
    if any(_has_interval(group, figure, intervals) for figure in group.rankings):
        sentences.append(
            "95% intervals of the ranked figures: bootstrap over the test images and, in rows of "
            "several seeds, over the seeds; thresholds as chosen."
        )
    return " ".join(sentences)


def _conditions(result: Result) -> str:
    recipe = result.recipe.training
    shared = f"{recipe.holdout} hold-out images a class, images of {recipe.image_size} px"
    if not recipe.trained:
        return f"Here: nothing is trained, {shared}."
    dropped = ", last partial batch dropped" if recipe.drop_last else ""
    length = f"{recipe.epochs} epochs"
    if recipe.iterations is not None:
        length = f"{recipe.iterations} iterations"
    best = ", weights of the epoch that is best on the hold-out"
    kept = best if recipe.checkpoint == "best" else ""
    return (
        f"Here: {length}{kept}, batch size {recipe.batch_size}{dropped}, "
        f"{shared} cut from {recipe.resize} px, flipped with probability {recipe.flip:g}."
    )


# --------------------------------------------------------------------------------------- commands


def _commands(group: Group, titles: Titles) -> list[str]:
    """A comment that says whence a row comes, and its command with all seeds, for each row."""
    return [line for row in group.rows for line in (_origin(row, titles), *repeat(row))]


def _origin(row: Row, titles: Titles) -> str:
    recipe = row.first.recipe
    commits = dict.fromkeys(commit_of(result.environment) for result in row.results)
    parts = (
        result_text(row.first, titles),
        recipe.backbone,
        device_of(row.first),
        f"recipe {row.first.recipe_key}",
        f"commit {', '.join(commits)}",
    )
    return one_line("# " + "; ".join(parts))


def repeat(row: Row) -> list[str]:
    """The commands that make a row again, one for all seeds where they were run alike."""
    seeds: defaultdict[str, list[str]] = defaultdict(list)
    for result in row.results:
        seeds[_SEED.sub("", one_line(result.command))].append(str(result.recipe.seed))
    return [f"{command} --seed {','.join(of)}" for command, of in seeds.items()]


# -------------------------------------------------------------------------------------- renderers

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
}
#: how the best and the second of a column are set
_LATEX_PLACES = ("textbf", "underline")


def _terminal_group(group: Group, head: str, titles: Titles) -> str:
    figures = [figure for figure in _MAIN if figure in group.figures]
    numbers = {k: of for figure in figures for k, of in _figure_columns(group, figure).items()}
    columns = ["rank", "method", "dataset", *numbers]
    rows = [
        [
            UNDEFINED if row.rank is None else str(row.rank),
            one_line(label),
            row.first.dataset.name,
            *(of(row) for of in numbers.values()),
        ]
        for label, row in zip(row_labels(group, titles), group.rows, strict=True)
    ]
    align = ["left"] * 3 + ["right"] * len(numbers)
    table = tabulate(rows, columns, "simple", disable_numparse=True, colalign=align)
    return f"{one_line(head)}\n\n{table}"


def _markdown_group(group: Group, head: str, titles: Titles, intervals: Intervals) -> str:
    columns, rows, texts = _cells(group, titles, intervals)
    parts = (
        f"### {markdown_text(head)}",
        markdown_text(notes(group, intervals)),
        markdown_table(columns, rows, numbers=columns[texts:]),
        "<details><summary>Commands that make these rows again</summary>",
        "\n".join(["```sh", *_commands(group, titles), "```"]),
        "</details>",
    )
    return "\n\n".join(parts)


def _latex_group(group: Group, head: str, titles: Titles, intervals: Intervals) -> str:
    columns, rows, texts = _cells(group, titles, intervals)
    marked = _marked(group)
    cells = [
        [_latex_cell(text, marked.get((row, c))) for c, text in zip(columns, of, strict=True)]
        for row, of in enumerate(rows)
    ]
    return latex_table(f"{head}. {notes(group, intervals)}", columns, cells, texts)


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_cell(text: str, place: int | None) -> str:
    escaped = latex_text(text)
    return escaped if place is None else rf"\{_LATEX_PLACES[place]}{{{escaped}}}"


def _marked(group: Group) -> dict[tuple[int, str], int]:
    """Place of the cells that are marked, by number of the row and column."""
    places = {figure: best_two(group, figure) for figure in group.figures}
    return {
        (row, figure_title(group, figure)): place
        for figure, rows in places.items()
        for row, place in rows.items()
    }


def borrowed(row: Row, figure: Figure) -> bool:
    """Whether a figure depends on class scores that are another run's."""
    return figure in CLASSIFIED and external_classifier(row.first.recipe)


def best_two(group: Group, figure: Figure) -> dict[int, int]:
    """Numbers of the rows that are best (0) and second (1) in a figure, ties included.

    Controls take no place, nor do class scores of another run, nor is there one where fewer than
    two rows have the figure.
    """
    means = {
        number: round(mean, DECIMALS)
        for number, row in enumerate(group.rows)
        if row.rank is not None
        and not borrowed(row, figure)
        and (mean := row.mean(figure)) is not None
    }
    order = sorted(set(means.values()), reverse=True)[:2] if len(means) > 1 else []
    return {number: order.index(mean) for number, mean in means.items() if mean in order}
