"""The command ``predict``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wsolbench.cli.common import Parser, add_command, warn
from wsolbench.errors import InputError


def add_predict(sub: Any) -> Parser:
    """Add ``predict``."""
    text = "Show where a trained run sees the object in any image, and which it is."
    parser = add_command(sub, "predict", text, _predict)
    add = parser.add_argument
    add("run", metavar="RUN", type=Path, help="a folder of results/runs")
    add("images", metavar="IMAGE", type=Path, nargs="+", help="image files, or folders of them")
    text = "write <image>.json, <image>.overlay.png and <image>.npy there (./predictions)"
    add("--out", metavar="DIR", type=Path, default=Path("predictions"), help=text)
    add("--protocol", metavar="P", help="make boxes as this one, which scored the run")
    add("--threshold", metavar="T", type=float, help="of the map, in [0, 1) (the protocol's)")
    text = "show this class, by name or number, whatever the run takes the image for"
    add("--class", dest="label", metavar="C", help=text)
    add("--device", default="auto", metavar="auto|cpu|cuda")
    return parser


def _predict(arguments: argparse.Namespace) -> int:
    from wsolbench.answers import SavedRun, batches, image_files
    from wsolbench.device import choose_device, make_deterministic
    from wsolbench.files import check_writable
    from wsolbench.overlay import write_answer

    make_deterministic()
    run = SavedRun(arguments.run, choose_device(arguments.device))
    cut = run.cut(arguments.protocol, arguments.threshold)
    label = None if arguments.label is None else run.label(arguments.label)
    files = image_files(arguments.images, arguments.out)
    check_writable(arguments.out)
    unread = 0
    for read, problems in batches(files):
        warn(problems)
        unread += len(problems)
        answers = run.answer([pixels for _, pixels in read], cut, label) if read else []
        for (found, _), answer in zip(read, answers, strict=True):
            _say(write_answer(answer, found, run.card, cut, arguments.out))
    if unread:
        rest = f"; those of the others are in {arguments.out}" if unread < len(files) else ""
        raise InputError(f"{unread} of {len(files)} images could not be read, see above{rest}")
    return 0


def _say(content: dict[str, Any]) -> None:
    named = content["class"]
    name = "object" if named is None else named["name"]
    box = " ".join(f"{value:.0f}" for value in content["box"])
    dead = ", from a map that says nothing" if content["dead_map"] else ""
    print(f"{content['image']}: {name} at {box}{dead}")
