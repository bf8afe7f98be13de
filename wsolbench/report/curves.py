"""Curves of a row's seeds over the thresholds."""

from __future__ import annotations

import numpy as np

from wsolbench.metrics import functional as F
from wsolbench.ranking import Row
from wsolbench.results import THRESHOLDS


def row_curve(row: Row, name: str) -> tuple[F.Floats, F.Floats] | None:
    """Return thresholds (T,) and each seed's values (S, T), NaN where a curve is undefined.

    None unless all seeds have the curve, at the same thresholds.
    """
    if not all(name in r.curves for r in row.results):
        return None
    if len({r.curves[THRESHOLDS] for r in row.results}) > 1 or len(row.first.curves[name]) < 2:
        return None
    levels = np.array(row.first.curves[THRESHOLDS], dtype=np.float64)
    return levels, np.array([r.curves[name] for r in row.results], dtype=np.float64)
