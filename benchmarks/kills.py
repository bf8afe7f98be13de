"""What ``kill -9`` costs a run, wherever it strikes.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 5

SAT is trained and scored on drawn rectangles by a process that is killed: between two steps or two
images, or in the middle of a file that it writes, cut at a random byte. The same command is then
given again. What both did beyond what one uninterrupted process does was lost. Weights,
optimiser and figures must be equal to the last bit, or the script fails.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "benchmarks", "tests")]

import torch
from commands import SMALL, VIT
from killed import Work, run_killed, same_state
from machine import heading, print_row, print_titles
from tqdm import tqdm
from trees import make_cub

from wsolbench.results import load_results

EPOCHS = 3


@dataclass(frozen=True)
class Place:
    """Where a process is killed.

    Attributes:
        title: what the table says.
        where: see :func:`killed.run_killed`.
        moments: how many there are to choose from, of what the uninterrupted process did.
    """

    title: str
    where: str
    moments: Callable[[Work], int]


PLACES = (
    Place("training, between two steps", "training", lambda whole: whole.steps),
    Place("writing a checkpoint", "checkpoint", lambda _: EPOCHS),
    Place("scoring, between two images", "scoring", lambda whole: whole.images),
    Place("writing the table of images", ".npz", lambda _: 1),
    Place("writing the record", ".json", lambda _: 1),
    Place("writing the saved run's settings", "run.json", lambda _: 1),
    Place("writing the saved run's weights", "safetensors", lambda _: 1),
    Place("writing the leaderboard", "leaderboard.md", lambda _: 1),
)


def main() -> None:
    """Print the machine and a table of the places."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="in each place")
    kills: int = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        make_cub(Path(folder) / "data", train=24)
        whole = _killed(Path(folder) / "whole", None, 0)
        _check(whole.code == 0, "it fails without being killed")
        _print_head(whole, kills)
        for place in PLACES:
            print_row(_row(place, whole, kills, Path(folder)))


def _print_head(whole: Work, kills: int) -> None:
    what = (
        f"{kills} run{'s' * (kills > 1)} killed in each place; a run has {EPOCHS} epochs of "
        f"{whole.steps // EPOCHS} steps, a checkpoint after each, and scores {whole.images} images"
    )
    print(f"{heading(torch.device('cpu'))}; {what}\n")
    lost = "steps lost, mean", "most", "images scored again, mean", "most"
    print_titles(["killed in", "times", *lost, "ends in the same weights and figures"])


def _row(place: Place, whole: Work, kills: int, folder: Path) -> list[str]:
    lost = [
        _lost(place, whole, folder)
        for _ in tqdm(range(kills), place.title, leave=False, disable=None)
    ]
    cells = [place.title, str(kills)]
    for twice in zip(*lost, strict=True):
        cells += [f"{sum(twice) / kills:.1f}", str(max(twice))]
    return [*cells, f"{kills} of {kills}"]


def _lost(place: Place, whole: Work, folder: Path) -> tuple[int, int]:
    """Steps and images that one run did twice because it was killed."""
    there = folder / "killed"
    first = _killed(there, place.where, random.randrange(place.moments(whole)))
    _check(first.code == -9, f"{place.title}: it was not killed")
    _check(not load_results(there).problems, f"{place.title}: a damaged file was left")
    second = _killed(there, None, 0)
    _check(second.code == 0, f"{place.title}: it does not go on")
    alike = same_state(_result(there), _result(folder / "whole"))
    _check(alike, f"{place.title}: it ends in another result")
    shutil.rmtree(there)
    return (
        first.steps + second.steps - whole.steps,
        first.images + second.images - whole.images,
    )


def _killed(results: Path, where: str | None, after: int) -> Work:
    words: Sequence[object] = [
        *("run", "--method", "sat", "--dataset", "cub", "--recipe", "default", *VIT, *SMALL),
        *("--epochs", EPOCHS, "--device", "cpu"),
        *("--data-root", results.parent / "data", "--results", results),
    ]
    return run_killed(where, after, [str(word) for word in words])


def _result(results: Path) -> dict[str, Any]:
    (record,) = (results / "measured").glob("*.json")
    (checkpoint,) = (results / "runs").glob("*/checkpoint.pt")
    said = json.loads(record.read_text("utf-8"))
    state = torch.load(checkpoint, weights_only=True)
    figures = {part: said[part] for part in ("figures", "curves", "history", "threshold")}
    return figures | {part: state[part] for part in ("model", "optimizer")}


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"error: {otherwise}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
