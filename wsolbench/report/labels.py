"""What rows of a comparison are called in charts and pictures."""

from __future__ import annotations

from wsolbench.columns import result_text
from wsolbench.ranking import Group, Row
from wsolbench.tables import Titles, device_of


def row_labels(group: Group, titles: Titles) -> list[str]:
    """Name each row by as little as tells it from the others: method, then what it is made of."""
    parts = [_parts(row, titles) for row in group.rows]
    return [", ".join(_said(own, parts)) for own in parts]


def _said(own: list[str], rows: list[list[str]]) -> list[str]:
    said = own[:1]
    for place in range(1, len(own)):
        alike = [other for other in rows if other[:place] == own[:place]]
        if own[place] and any(other[place] != own[place] for other in alike):
            said.append(own[place])
    return said


def _parts(row: Row, titles: Titles) -> list[str]:
    recipe, result = row.first.recipe, row.first
    control = "" if recipe.train_labels == "official" else f"{recipe.train_labels} labels"
    return [
        result_text(result, titles),
        control,
        recipe.backbone,
        device_of(result),
        f"recipe {result.recipe_key}",
    ]
