"""The log of a training: scalars over its steps, as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsolbench import processes
from wsolbench.files import append_text, explained, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE_NAME = "log.jsonl"
#: folder of the event files
EVENTS = "tensorboard"


class TrainingLog:
    """Entries beside the checkpoints of a training, in ``log.jsonl`` and ``tensorboard/``.

    Nothing is written before the first entry. What a killed process wrote of steps that come again
    is dropped, and a line that it had not finished.

    Args:
        folder: of the run.
        step: steps of the optimiser that are done; entries of later ones are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._file, self._events, self._step = folder / FILE_NAME, folder / EVENTS, step
        self._writer: SummaryWriter | None = None
        self._speaks = processes.is_first()
        if self._speaks:
            self._drop_later()

    def write(self, step: int, values: dict[str, float], losses: dict[str, float]) -> None:
        """Add an entry.

        Args:
            step: steps of the optimiser that are done.
            values: scalars by name.
            losses: what the method's training step returned, by name, as means over the images
                since the last entry.

        Raises:
            WsolbenchError: when the disk is full or the folder cannot be written to.
        """
        if not self._speaks:
            return
        entry = {"step": step, **values, "losses": losses}
        append_text(self._file, json.dumps(_plain(entry), allow_nan=False) + "\n")
        try:
            writer = self._writer = self._writer or self._open()
            for name, value in (*values.items(), *((f"losses/{n}", v) for n, v in losses.items())):
                writer.add_scalar(name, value, step)
            writer.flush()  # what a killed process holds back is lost
        except OSError as error:
            raise explained(error, self._events) from error

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds

        return SummaryWriter(str(self._events), purge_step=self._step + 1)

    def _drop_later(self) -> None:
        if not self._file.is_file():
            return
        lines = self._file.read_text("utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= self._step]
        if kept != lines:
            write_text(self._file, "".join(kept))


def _step_of(line: str) -> float:
    """The step of an entry; infinite where the line is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value if math.isfinite(value) else None
