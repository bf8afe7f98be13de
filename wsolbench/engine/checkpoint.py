"""Checkpoints: the last ones of a run, each written whole or not at all."""

from __future__ import annotations

import logging
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsolbench.errors import InputError, WsolbenchError
from wsolbench.files import write_atomically

log = logging.getLogger("wsolbench")

#: checkpoints of a run that are kept: the newest and one to fall back on
KEPT = 2


@dataclass
class Part:
    """Where an epoch under way stands.

    Attributes:
        step: its finished steps, which say which images come next.
        images: those of these steps.
        sums: what the means of its losses are made from.
        rng: state of the random numbers of each process.
    """

    step: int
    images: int
    sums: dict[str, Tensor]
    rng: list[dict[str, Any]]


@dataclass
class Best:
    """The weights that count where not the last ones do.

    Attributes:
        epoch: after which they were so.
        figure: what the hold-out said of them, in percent.
        state: of the method, on the CPU.
    """

    epoch: int
    figure: float
    state: dict[str, Tensor]


@dataclass
class Progress:
    """What a training has done so far.

    Attributes:
        epoch: finished epochs.
        seconds: wall-clock time spent, over all interruptions.
        images: images trained on.
        peak_memory: most bytes taken in training.
        history: one mapping of mean losses an epoch.
        origin: what made the weights beside the recipe: environment and pretrained weights.
        part: the epoch under way; None between two epochs.
        best: None where the last weights count.
    """

    epoch: int = 0
    seconds: float = 0.0
    images: int = 0
    peak_memory: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)
    part: Part | None = None
    best: Best | None = None


#: fields of the progress that are written as mappings
_NESTED: dict[str, Callable[..., Any]] = {"part": Part, "best": Best}

#: states of model and optimiser, and the progress
Loaded = tuple[dict[str, Any], dict[str, Any], Progress]


def save_checkpoint(
    file: Path, model: Any, optimizer: Any, progress: Progress, kept: int = KEPT
) -> None:
    """Write the states of model and optimiser beside ``progress``, whole or not at all.

    What ``file`` held becomes ``<stem>.1.pt`` beside it, that becomes ``<stem>.2.pt``, and so on.

    Args:
        kept: checkpoints that stay, with this one.

    Raises:
        WsolbenchError: when the disk is full or the folder cannot be written to; earlier
            checkpoints are left as they were.
    """
    for stale in file.parent.glob(f".{_fresh(file).name}.*.tmp"):  # of a killed process
        stale.unlink(missing_ok=True)
    within = {name: value and vars(value) for name, value in _nested(progress).items()}
    state = {"model": model, "optimizer": optimizer, "progress": vars(progress) | within}
    fresh = _fresh(file)
    write_atomically(fresh, lambda stream: torch.save(state, stream))
    # Oldest first: a kill between two moves leaves gaps, but every checkpoint stays whole.
    chain = [fresh, file, *(_older(file, age) for age in range(1, kept))]
    for newer, older in reversed(list(pairwise(chain))):
        if newer.is_file():
            newer.replace(older)
    for beyond in set(file.parent.glob(f"{file.stem}.*{file.suffix}")) - set(chain):
        beyond.unlink()


def checkpoints(file: Path) -> list[Path]:
    """Return the checkpoints beside and including ``file``, the newest first."""
    older = [f for f in file.parent.glob(f"{file.stem}.*{file.suffix}") if _age(f) > 0]
    chain = [_fresh(file), file, *sorted(older, key=_age)]
    return [found for found in chain if found.is_file()]


def newest_checkpoint(file: Path) -> Loaded | None:
    """Load the newest of :func:`checkpoints` that is whole; None when there is none.

    Damaged ones are named in a warning and left as they are.
    """
    for candidate in checkpoints(file):
        try:
            return load_checkpoint(candidate)
        except InputError as error:
            log.warning("warning: %s; going on without it", error)
    return None


def load_checkpoint(file: Path) -> Loaded:
    """Return the states of model and optimiser, on the CPU, and the progress.

    Raises:
        InputError: when the file is damaged or no checkpoint.
        WsolbenchError: when the disk does not let it be read.
    """
    try:
        check_sums(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        progress = Progress(**state["progress"])
        for name, value in _nested(progress).items():
            if value is not None:
                setattr(progress, name, _NESTED[name](**state["progress"][name]))
        return state["model"], state["optimizer"], progress
    except OSError as error:
        if error.errno is None:  # zipfile's and torch's own, for damage
            raise unusable(file, error) from error
        raise WsolbenchError(
            f"{file} cannot be read ({error.strerror}); mend that, or --no-resume trains anew"
        ) from error
    except Exception as error:  # damage makes the unpickler raise nearly anything
        raise unusable(file, error) from error


def _nested(progress: Progress) -> dict[str, Any]:
    return {name: getattr(progress, name) for name in _NESTED}


def unusable(file: Path, error: Exception) -> InputError:
    """Say that a file is no checkpoint of this training."""
    return InputError(f"{file} is no usable checkpoint ({type(error).__name__})")


def check_sums(file: Path) -> None:
    """Raise where a part does not match its checksum: torch would load it without a word."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def rng_state(device: torch.device) -> dict[str, Any]:
    """Everything that the next random number of this process depends on, as plain data."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on with the random numbers where :func:`rng_state` was asked."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _fresh(file: Path) -> Path:
    return file.with_suffix(f".new{file.suffix}")


def _older(file: Path, age: int) -> Path:
    return file.with_suffix(f".{age}{file.suffix}")


def _age(file: Path) -> int:
    number = Path(file.stem).suffix.removeprefix(".")
    return int(number) if number.isdecimal() else 0
