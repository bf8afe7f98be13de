"""What precision and compilation change in the figures.

    python benchmarks/precision.py
    python benchmarks/precision.py --device cuda

SAT, TS-CAM and CAM, or the methods given, are trained and scored on drawn birds as ``run`` does by
default, once in each way that the device has; in brackets what that changes beside fp32. One more
row has another seed, for scale. Where bf16 is emulated it takes most of the time, above all for
CNNs.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "benchmarks")]

import torch
from machine import heading, print_row, print_titles

from wsolbench.cli import main as command_line
from wsolbench.cli.common import names
from wsolbench.columns import FIGURE_TITLES
from wsolbench.device import choose_device, has_tf32
from wsolbench.protocol import Figure
from wsolbench.registry import METHODS
from wsolbench.results import Result, load_results

COMPARED = ("sat", "ts-cam", "cam")
WORDS: tuple[object, ...] = ("--dataset", "toybirds")
FIGURES: tuple[Figure, ...] = ("gt_known_loc", "top1_loc", "max_box_acc_v2", "top1_cls")
_DECIMALS = (*(2 for _ in FIGURES), 4)


def main() -> None:
    """Print the machine and a table of the ways."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--method", type=names, default=COMPARED, help="one or more, by commas")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    print(f"{heading(device)}; the default regime on drawn birds, seed 0\n")
    titles = ["method", "precision", *(FIGURE_TITLES[figure] for figure in FIGURES), "last loss"]
    print_titles(titles)
    with tempfile.TemporaryDirectory() as folder:
        for method in arguments.method:
            plain = None
            for way, words in ways(device):
                found = _made(method, words, device, Path(folder))
                plain = plain or found
                name = METHODS.get(method).info.title
                print_row([name, way, *_cells(found, plain)])


def ways(device: torch.device) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Names of the ways to compute, fp32 first, and the options that ask for them."""
    yield "fp32", ()
    yield "fp32, compiled", ("--compile",)
    if has_tf32(device):
        yield "TF32", ("--precision", "tf32")
    yield "bf16", ("--precision", "bf16")
    yield "fp32, seed 1", ("--seed", 1)


def _made(method: str, words: Sequence[object], device: torch.device, folder: Path) -> Result:
    """Record of one run, made in a results folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as results:
        places = ("--data-root", folder / "data", "--results", results, "--device", device.type)
        arguments = ["run", "--method", method, *places, *WORDS, *words]
        with contextlib.redirect_stdout(sys.stderr):
            code = command_line([str(argument) for argument in arguments])
        if code:
            raise SystemExit(code)
        (found,) = load_results(Path(results)).results
        return found


def _cells(found: Result, plain: Result) -> list[str]:
    """Figures and last loss, with what changed unless both are one record."""
    cells = []
    for value, before, decimals in zip(_numbers(found), _numbers(plain), _DECIMALS, strict=True):
        change = "" if found is plain else f" ({value - before:+.{decimals}f})"
        cells.append(f"{value:.{decimals}f}{change}")
    return cells


def _numbers(result: Result) -> list[float]:
    given = [*(result.figures[figure] for figure in FIGURES), result.history[-1]["loss"]]
    known = [value for value in given if value is not None]
    assert len(known) == len(given), "a figure is missing"
    return known


if __name__ == "__main__":
    main()
