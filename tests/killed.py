"""The command line in a process of its own that the kernel kills at a chosen moment."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Any

from wsolbench.checks.joined import PRELOADED


@dataclass(frozen=True)
class Work:
    """What a process did before it ended.

    Attributes:
        code: how it ended: -9 when it was killed.
        steps: training steps that it finished.
        images: images that it scored.
    """

    code: int | None
    steps: int
    images: int


def run_killed(where: str | None, after: int, arguments: list[str]) -> Work:
    """Run a command in a process that is killed, unless it ends before.

    Args:
        where: ``training``, ``scoring``, or part of the name of a file in the middle of whose
            writing it dies; None for nowhere.
        after: steps done, images scored, or such files written, before that.
    """
    context = multiprocessing.get_context("forkserver")  # imports once for all kills
    context.set_forkserver_preload(list(PRELOADED))
    counts = context.Array("q", 2)
    process = context.Process(target=_run, args=(where, after, arguments, random.random(), counts))
    process.start()
    process.join()
    return Work(process.exitcode, *counts.get_obj())  # who died may have held the lock


def same_state(a: Any, b: Any) -> bool:
    """Whether two states, tensors in mappings in mappings, are equal to the last bit."""
    import torch

    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    return bool(a == b)


def _run(where: str | None, after: int, arguments: list[str], share: float, counts: Any) -> None:
    import torch
    from tqdm import tqdm

    from wsolbench import files, scoring
    from wsolbench.cli import main
    from wsolbench.engine.trainer import Trainer

    tqdm.set_lock(threading.RLock())  # its own is the system's, and would be left behind
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    ways = (("training", Trainer, "_step"), ("scoring", scoring, "read_truth"))
    for counted, (way, owner, name) in enumerate(ways):
        last = after if where == way else None
        setattr(owner, name, _dying(vars(owner)[name], counts, counted, last))
    files._write_through = _half_written(files._write_through, where, after, share)
    raise SystemExit(main(arguments))


def _dying(real: Callable[..., Any], counts: Any, counted: int, last: int | None) -> Any:
    def call(*args: Any) -> Any:
        with counts.get_lock():  # threads score
            if counts[counted] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*args)
            counts[counted] += 1
        return done

    return call


def _half_written(
    real: Callable[..., Any], where: str | None, after: int, share: float
) -> Callable[..., Any]:
    counter = count()

    def write(file: Path, content: Callable[[IO[bytes]], object]) -> None:
        if where and where in file.name and next(counter) == after:
            whole = io.BytesIO()
            content(whole)
            file.write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
            os.kill(os.getpid(), signal.SIGKILL)
        real(file, content)

    return write
