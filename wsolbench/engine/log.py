"""The log of a training: scalars over its steps, as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from wsolbench import processes
from wsolbench.files import append_text, explained, write_text

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
        self._writer: _Events | None = None
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
            writer = self._writer = self._writer or _Events(self._events, self._step + 1)
            writer.write(step, {**values, **{f"losses/{n}": v for n, v in losses.items()}})
        except OSError as error:
            raise explained(error, self._events) from error

    def close(self) -> None:
        """Close the files; every entry is in them already, or was reported where it was not."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def _drop_later(self) -> None:
        if not self._file.is_file():
            return
        lines = self._file.read_text("utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= self._step]
        if kept != lines:
            write_text(self._file, "".join(kept))


class _Events:
    """An event file of TensorBoard, written at once.

    The usual writer has a thread, which would print what a full disk raises in it.

    Args:
        folder: of event files.
        first: step from which earlier files' events count no more.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
        self._stream = (folder / name).open("ab")
        self._records = RecordWriter(self._stream)
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        entries = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        self._add(Event(step=step, summary=Summary(value=entries)))
        self._stream.flush()  # what a killed process holds back is lost

    def close(self) -> None:
        self._stream.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


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
