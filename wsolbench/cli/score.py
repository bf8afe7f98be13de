"""The command ``score``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench.cli.common import Parser, add_command, add_data, count, data_root
from wsolbench.errors import InputError

if TYPE_CHECKING:
    from wsolbench.dataset import Split
    from wsolbench.metrics.scorer import Scorer
    from wsolbench.protocol import Protocol


def add_score(sub: Any) -> Parser:
    """Add ``score``."""
    parser = add_command(sub, "score", "Score maps made by any code.", _score)
    add = parser.add_argument
    text = "folder with <image id>.npy (h, w) and perhaps logits.npz (image_id, logits)"
    add("--maps", required=True, metavar="DIR", type=Path, help=text)
    add_data(parser)
    add("--protocol", default="wsoleval", metavar="P")
    add("--val-maps", metavar="DIR", type=Path, help="maps of the held-out images")
    add("--holdout", metavar="N", type=count, help="held-out images a class (as in default)")
    add("--json", metavar="FILE", type=Path, help="write figures, threshold and curves there")
    return parser


def _score(arguments: argparse.Namespace) -> int:
    from wsolbench.files import write_text
    from wsolbench.protocol import load_protocol
    from wsolbench.registry import DATASETS
    from wsolbench.scoring import saved_predictions, score, scores_of

    protocol = load_protocol(arguments.protocol)
    held_out = protocol.selection.kind == "held-out"
    if held_out and arguments.val_maps is None:
        raise InputError(
            f"protocol '{protocol.name}' chooses its threshold on held-out images; "
            "give their maps with --val-maps DIR"
        )
    holdout = _holdout(arguments) if held_out else 0
    dataset = DATASETS.get(arguments.dataset)(data_root(arguments), holdout)
    maps = {"val": arguments.val_maps, "test": arguments.maps}

    def scorers(protocols: Sequence[Protocol], split: Split) -> list[Scorer]:
        samples = dataset.samples(split)
        stream = saved_predictions(maps[split], samples)
        names = dataset.part_names
        return score(stream, samples, protocols, dataset.name, split, part_names=names)

    scores, _, percentile = scores_of(protocol, scorers)
    for name, value in scores.figures.items():
        print(f"{name}{' (oracle)' if name in protocol.oracle else ''}: {value:.2f}")
    if scores.threshold is not None:
        print(f"threshold ({protocol.selection.kind}): {scores.threshold:g}")
    if percentile is not None:
        print(f"percentile: {percentile:g}")
    if arguments.json is not None:
        content = {"protocol": protocol.name, "percentile": percentile, **vars(scores)}
        write_text(arguments.json, json.dumps(content) + "\n")
    return 0


def _holdout(arguments: argparse.Namespace) -> int:
    from wsolbench.layers import default_holdout
    from wsolbench.request import dataset_part

    given: int | None = arguments.holdout
    return default_holdout(dataset_part(arguments.dataset)) if given is None else given
