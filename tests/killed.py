"""The command line in a process of its own that the kernel kills at a chosen moment."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import IO, Any

from wsolbench.checks.joined import PRELOADED


def run_killed(where: str, after: int, arguments: list[str]) -> int | None:
    """Run a command and return its exit code, which is -9 when it was killed.

    Args:
        where: ``scoring``, or part of the name of a file in the middle of whose writing it dies.
        after: images scored, or such files written, before that.
    """
    context = multiprocessing.get_context("forkserver")  # imports once for all kills
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_run, args=(where, after, arguments, random.random()))
    process.start()
    process.join()
    return process.exitcode


def _run(where: str, after: int, arguments: list[str], share: float) -> None:
    import torch

    from wsolbench import files, scoring
    from wsolbench.cli import main

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    counter = count()
    if where == "scoring":
        vars(scoring)["read_truth"] = _dying(vars(scoring)["read_truth"], counter, after)
    else:
        files._write_through = _half_written(files._write_through, where, counter, after, share)
    raise SystemExit(main(arguments))


def _dying(real: Callable[..., Any], counter: count[int], after: int) -> Callable[..., Any]:
    def read(*args: Any) -> Any:
        if next(counter) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    return read


def _half_written(
    real: Callable[..., Any], where: str, counter: count[int], after: int, share: float
) -> Callable[..., Any]:
    def write(file: Path, content: Callable[[IO[bytes]], object]) -> None:
        if where in file.name and next(counter) == after:
            whole = io.BytesIO()
            content(whole)
            file.write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
            os.kill(os.getpid(), signal.SIGKILL)
        real(file, content)

    return write
