"""Checkpoints: the last one of a run, written whole or not at all."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wsolbench.errors import InputError
from wsolbench.files import write_atomically


@dataclass
class Progress:
    """What a training has done so far.

    Attributes:
        epoch: finished epochs.
        seconds: wall-clock time spent on them, over all interruptions.
        images: images trained on.
        peak_memory: most bytes taken in training.
        history: one mapping of mean losses an epoch.
        origin: what made the weights beside the recipe: environment and pretrained weights.
    """

    epoch: int = 0
    seconds: float = 0.0
    images: int = 0
    peak_memory: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(file: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Write the states of model and optimiser beside ``progress``, whole or not at all.

    Raises:
        WsolbenchError: when the disk is full or the folder cannot be written to; an earlier
            checkpoint is left as it was.
    """
    state = {"model": model, "optimizer": optimizer, "progress": vars(progress)}
    write_atomically(file, lambda stream: torch.save(state, stream))


def load_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Any], Progress]:
    """Return the states of model and optimiser, on the CPU, and the progress.

    Raises:
        InputError: when the file is damaged or no checkpoint.
    """
    try:
        check_sums(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        return state["model"], state["optimizer"], Progress(**state["progress"])
    except Exception as error:  # damage makes the unpickler raise nearly anything
        raise unusable(file, error) from error


def unusable(file: Path, error: Exception) -> InputError:
    """Say that a file is no checkpoint of this training."""
    kind = type(error).__name__
    return InputError(f"{file} is no usable checkpoint ({kind}); delete it to train again")


def check_sums(file: Path) -> None:
    """Raise where a part does not match its checksum: torch would load it without a word."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
