"""Work on threads ahead of whoever takes the results, in order and within bounds."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def prefetched(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int, threads: int
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` in order, computed by threads for up to ``ahead`` items in advance.

    Whoever takes the results takes the items too, in between: threads never touch ``items``. The
    bound keeps memory constant where the consumer is slow. What ``function`` raises is raised where
    its result would stand; items not begun are dropped then, as when the consumer stops.

    Args:
        function: for work that releases the interpreter's lock, as Pillow, OpenCV and compiled
            kernels do; else threads are no faster than one.
        items: what it is called with.
        ahead: items taken before the first result is yielded; then it is one for one.
        threads: how many work; the results do not depend on it.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    waiting = iter(items)
    try:
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(waiting, ahead)
        )
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
