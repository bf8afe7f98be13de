"""How long a run on a dataset of ImageNet's size waits for its first batch, first and second time.

    python benchmarks/dataset_index.py FOLDER
    python benchmarks/dataset_index.py FOLDER --images 13000 --val 500 --classes 10

FOLDER needs room for some hundred small files and 50,000 XML files: training images are hard
links to a few real JPEGs, and so are validation images, each with an XML file of its own. The tree
stays there for the next call. Each start is a process of its own, timed from before it begins
until a training batch is there.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("", "benchmarks")]

import numpy as np
import torch
from machine import heading, print_row, print_titles
from PIL import Image

#: links of one file; file systems allow some ten thousand
LINKS = 20_000
CLASSES, IMAGES, VAL = 1000, 1_300_000, 50_000

_START = """
import sys
from pathlib import Path
from wsolbench.data.loader import DecodedImages, TrainLoader
from wsolbench.registry import DATASETS

data = DATASETS.get("ilsvrc")(Path(sys.argv[1]), 0)
data.fingerprint()
train = data.samples("train")
images = DecodedImages(train, 256)
loader = TrainLoader(train, images, 32, 224, 0.5, (0.5,) * 3, (0.5,) * 3, 0, True, "cpu")
batch = next(iter(loader.epoch(1)))
assert batch.image.shape == (32, 3, 224, 224)
print(len(train))
"""


def make_tree(root: Path, images: int, val: int, classes: int) -> None:
    """Write the tree unless it is there."""
    done = root / "made"
    if done.exists():
        return
    wnids = [f"n{number:08d}" for number in range(1, classes + 1)]
    sources = _sources(root / "sources", images + val)
    linked = 0
    for wnid in wnids:
        folder = root / "ILSVRC/train" / wnid
        folder.mkdir(parents=True)
        for number in range(images // classes):
            os.link(sources[linked // LINKS], folder / f"{wnid}_{number}.JPEG")
            linked += 1
    pictures, boxes = root / "ILSVRC/val", root / "ILSVRC/bbox_val"
    pictures.mkdir()
    boxes.mkdir()
    for number in range(1, val + 1):
        stem = f"ILSVRC2012_val_{number:08d}"
        os.link(sources[linked // LINKS], pictures / f"{stem}.JPEG")
        linked += 1
        (boxes / f"{stem}.xml").write_text(_xml(wnids[number % classes], number % 3 + 1))
    done.touch()


def _sources(folder: Path, count: int) -> list[Path]:
    """Photograph-like JPEGs of ImageNet's usual size."""
    folder.mkdir(parents=True)
    rng, files = np.random.default_rng(0), []
    for number in range(count // LINKS + 1):
        coarse = rng.integers(0, 256, (38, 50, 3), dtype=np.uint8)
        files.append(folder / f"{number}.JPEG")
        Image.fromarray(coarse).resize((500, 375)).save(files[-1], quality=90)
    return files


def _xml(wnid: str, count: int) -> str:
    thing = (
        f"<object><name>{wnid}</name><pose>Unspecified</pose><truncated>0</truncated>"
        "<difficult>0</difficult><bndbox><xmin>111</xmin><ymin>108</ymin><xmax>441</xmax>"
        "<ymax>193</ymax></bndbox></object>"
    )
    size = "<size><width>500</width><height>375</height><depth>3</depth></size>"
    return f"<annotation><folder>val</folder>{size}{thing * count}</annotation>\n"


def timed_start(root: Path) -> tuple[int, float, float]:
    """Images of a process of its own, seconds until its first batch, and those of its CPU."""
    started, before = time.perf_counter(), _child_seconds()
    done = subprocess.run(
        [sys.executable, "-c", _START, str(root)], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - started
    return int(done.stdout), seconds, _child_seconds() - before


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the machine and a table of the starts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--val", type=int, default=VAL)
    parser.add_argument("--classes", type=int, default=CLASSES)
    given = parser.parse_args()
    make_tree(given.folder, given.images, given.val, given.classes)
    (given.folder / ".wsolbench/ilsvrc.parquet").unlink(missing_ok=True)
    print(f"{heading(torch.device('cpu'))}; ImageNet's layout, {given.val} XML files\n")
    print_titles(["start", "training images", "until the first batch, s", "of CPU, s"])
    for name in ("first", "second", "third"):
        images, seconds, busy = timed_start(given.folder)
        print_row([name, str(images), f"{seconds:.1f}", f"{busy:.1f}"])


if __name__ == "__main__":
    main()
