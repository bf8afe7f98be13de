"""The command ``score``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wsolbench.cli.common import Parser, add_command, add_data, count, data_root
from wsolbench.errors import InputError

if TYPE_CHECKING:
    from wsolbench.dataset import Dataset, Sample, Split
    from wsolbench.metrics.scorer import Scorer
    from wsolbench.protocol import Protocol
    from wsolbench.scoring import Stream


def add_score(sub: Any) -> Parser:
    """Add ``score``."""
    text = "Score maps made by any code, or a saved run."
    parser = add_command(sub, "score", text, _score)
    add = parser.add_argument
    text = "folder with <image id>.npy (h, w) and perhaps logits.npz (image_id, logits)"
    add("--maps", metavar="DIR", type=Path, help=text)
    add("--run", metavar="DIR", type=Path, help="a folder of results/runs, in place of maps")
    add_data(parser)
    add("--protocol", default="wsoleval", metavar="P")
    add("--val-maps", metavar="DIR", type=Path, help="maps of the held-out images")
    add("--holdout", metavar="N", type=count, help="held-out images a class (as in default)")
    add("--device", default="auto", metavar="auto|cpu|cuda", help="where a saved run computes")
    add("--json", metavar="FILE", type=Path, help="write figures, threshold and curves there")
    return parser


def _score(arguments: argparse.Namespace) -> int:
    from wsolbench.files import write_text
    from wsolbench.protocol import load_protocol
    from wsolbench.scoring import score, scores_of

    if (arguments.maps is None) == (arguments.run is None):
        raise InputError("say what to score: either --maps DIR or --run DIR")
    protocol = load_protocol(arguments.protocol)
    source = _maps(arguments, protocol) if arguments.run is None else _run(arguments, protocol)
    dataset = source.dataset

    def scorers(protocols: Sequence[Protocol], split: Split) -> list[Scorer]:
        samples = source.samples(split)
        stream, parts, size = source.stream(samples, split), dataset.part_names, source.input_size
        return score(stream, samples, protocols, dataset.name, split, size, parts, source.threads)

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


class _Source(NamedTuple):
    """What is scored.

    Attributes:
        dataset: what its images are of.
        samples: those of a split.
        stream: predictions of samples of a split.
        input_size: side of the method's input in pixels; None where maps are all there is.
        threads: how many measure images; None for one for each core.
    """

    dataset: Dataset
    samples: Callable[[Split], Sequence[Sample]]
    stream: Callable[[Sequence[Sample], Split], Stream]
    input_size: int | None = None
    threads: int | None = None


def _maps(arguments: argparse.Namespace, protocol: Protocol) -> _Source:
    from wsolbench.registry import DATASETS
    from wsolbench.scoring import saved_predictions

    held_out = protocol.selection.kind == "held-out"
    if held_out and arguments.val_maps is None:
        raise InputError(
            f"protocol '{protocol.name}' chooses its threshold on held-out images; "
            "give their maps with --val-maps DIR"
        )
    if not held_out:
        why = f"protocol '{protocol.name}' takes no threshold from held-out images; leave out"
        _refuse_held_out(arguments, why + " {}, or take --protocol standard")
    holdout = _holdout(arguments) if held_out else 0
    dataset = DATASETS.get(arguments.dataset)(data_root(arguments), holdout)
    maps = {"val": arguments.val_maps, "test": arguments.maps}
    return _Source(
        dataset, dataset.samples, lambda samples, split: saved_predictions(maps[split], samples)
    )


def _run(arguments: argparse.Namespace, protocol: Protocol) -> _Source:
    from wsolbench.answers import SavedRun
    from wsolbench.device import choose_device, make_deterministic
    from wsolbench.inputs import SharedData, check_holdout
    from wsolbench.scoring import threads_beside

    _refuse_held_out(arguments, "{} does not go with --run, which knows its own hold-out")
    make_deterministic()
    run = SavedRun(arguments.run, choose_device(arguments.device))
    recipe = run.card.recipe
    check_holdout(recipe, [protocol])
    data, here = SharedData(data_root(arguments)), recipe.altered(dataset=arguments.dataset)
    dataset = data.dataset(here)
    if tuple(dataset.class_names) != run.card.class_names:
        raise InputError(f"the run in '{arguments.run}' was trained on other classes")
    return _Source(
        dataset,
        data.available(here).__getitem__,
        lambda samples, _: run.localizer.stream(samples, protocol.geometry),
        recipe.image_size,
        threads_beside(run.localizer.device),
    )


def _refuse_held_out(arguments: argparse.Namespace, why: str) -> None:
    """Refuse the options about held-out images; ``why`` has ``{}`` for the one that is given."""
    for name in ("val_maps", "holdout"):
        if getattr(arguments, name) is not None:
            raise InputError(why.format("--" + name.replace("_", "-")))


def _holdout(arguments: argparse.Namespace) -> int:
    from wsolbench.layers import default_holdout
    from wsolbench.request import dataset_part

    given: int | None = arguments.holdout
    return default_holdout(dataset_part(arguments.dataset)) if given is None else given
