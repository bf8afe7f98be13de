"""What papers published, as files that come with the suite."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

_HERE = Path(__file__).resolve().parent


def read_table(name: str) -> pd.DataFrame:
    """Read a file of ``results/reported``; every value is text, as printed."""
    # The wheel has them inside the package, a checkout beside its results.
    places = (_HERE / "reported", _HERE.parent / "results" / "reported")
    folder = next(place for place in places if place.is_dir())
    return pd.read_csv(folder / name, dtype=str, keep_default_na=False)
