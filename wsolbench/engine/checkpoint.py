"""Checkpoints: the last one of a run, written whole or not at all."""

from __future__ import annotations

import errno
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wsolbench.errors import InputError, WsolbenchError


@dataclass
class Progress:
    """What a training has done so far.

    Attributes:
        epoch: finished epochs.
        seconds: wall-clock time spent on them, over all interruptions.
        images: images trained on.
        history: one mapping of mean losses an epoch.
    """

    epoch: int
    seconds: float
    images: int
    history: list[dict[str, float]]


def save_checkpoint(file: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Write the states of model and optimiser beside ``progress``.

    Raises:
        WsolbenchError: when the disk is full or the folder cannot be written to; an earlier
            checkpoint is left as it was.
    """
    state = {"model": model, "optimizer": optimizer, "progress": vars(progress)}
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        what = "the disk is full" if _is_full(error) else " ".join(str(error).split())[:200]
        raise WsolbenchError(
            f"cannot write the checkpoint {file}: {what}; make room and run the same command "
            "again: it goes on after the last whole epoch"
        ) from error


def _is_full(error: BaseException | None) -> bool:
    # torch may follow a failed write by a RuntimeError about positions in the file
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error is not None and error.errno in (errno.ENOSPC, errno.EDQUOT)


def load_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Any], Progress]:
    """Return the states of model and optimiser, on the CPU, and the progress.

    Raises:
        InputError: when the file is damaged or no checkpoint.
    """
    try:
        _check_sums(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        return state["model"], state["optimizer"], Progress(**state["progress"])
    except Exception as error:  # damage makes the unpickler raise nearly anything
        raise unusable(file, error) from error


def unusable(file: Path, error: Exception) -> InputError:
    """Say that a file is no checkpoint of this training."""
    kind = type(error).__name__
    return InputError(f"{file} is no usable checkpoint ({kind}); delete it to train again")


def _check_sums(file: Path) -> None:
    """Raise where a part does not match its checksum: torch would load it without a word."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
