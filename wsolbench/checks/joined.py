"""Several processes that work together on the CPU, as ``torchrun`` would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

#: imported once for all processes that are started
PRELOADED = ("wsolbench.cli", "wsolbench.request", "wsolbench.leaderboard", "timm")
#: seconds after which processes that wait for each other are given up
PATIENCE = 600


def run_joined(work: Callable[..., int], count: int, *arguments: object) -> list[int | None]:
    """Call ``work(*arguments)`` in so many processes that can join, and return their exit codes.

    Args:
        work: a function of a module; it and its arguments are pickled.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    port = _free_port()
    started = [
        context.Process(target=_work, args=(work, rank, count, port, arguments))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
        process.kill()
    return [process.exitcode for process in started]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _work(
    work: Callable[..., int], rank: int, count: int, port: int, arguments: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit(work(*arguments))
