"""What rows of a comparison and curves of a chart are called in charts and pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from wsolbench.columns import Titles, control_text, device_of
from wsolbench.ranking import Group
from wsolbench.results import Result

_BACKBONE, _DEVICE = "backbone", "device"
#: parts of a name that tables have columns for
COLUMNS = frozenset({_BACKBONE, _DEVICE})


def row_labels(group: Group, titles: Titles, but: Collection[str] = ()) -> list[str]:
    """Name each row of a group, see :func:`result_labels`."""
    return result_labels([row.first for row in group.rows], titles, but)


def result_labels(
    results: Sequence[Result], titles: Titles, but: Collection[str] = ()
) -> list[str]:
    """Name each record by as little as tells it from the others: method, then what it is made of.

    Args:
        results: one of each row or curve.
        titles: name of a method to its title.
        but: parts, of :data:`COLUMNS`, that are said elsewhere.
    """
    parts = [_parts(result, titles) for result in results]
    return [
        ", ".join(own[name] for name in _telling(own, parts) if name not in but) for own in parts
    ]


def _telling(own: dict[str, str], of_all: list[dict[str, str]]) -> list[str]:
    """Names of the parts that are needed: the first, and where it differs from one so far alike."""
    names = list(own)
    said = names[:1]
    for place, name in enumerate(names[1:], 1):
        alike = [other for other in of_all if all(other[n] == own[n] for n in names[:place])]
        if any(other[name] != own[name] for other in alike):
            said.append(name)
    return said


def _parts(result: Result, titles: Titles) -> dict[str, str]:
    return {
        "method": control_text(result, titles),
        _BACKBONE: result.recipe.backbone,
        _DEVICE: device_of(result),
        "recipe": f"recipe {result.recipe_key}",
    }
