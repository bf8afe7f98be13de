"""Threads that work ahead: in order, within bounds, and gone when they are not needed."""

from __future__ import annotations

import threading

import pytest

from wsolbench.parallel import prefetched

THREADS = 3


def _threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("prefetch")}


def test_prefetched_keeps_the_order_and_ends_its_threads() -> None:
    assert list(prefetched(lambda x: x * x, range(50), ahead=4, threads=THREADS)) == [
        x * x for x in range(50)
    ]
    for thread in threading.enumerate():
        if thread.name.startswith("prefetch"):
            thread.join(timeout=5)
    assert not _threads()


def test_prefetched_is_bounded() -> None:
    """What was computed but not taken never exceeds the bound, however slow the consumer."""
    done: list[int] = []
    results = prefetched(done.append, range(1000), ahead=6, threads=THREADS)
    for taken, _ in zip(range(1, 40), results, strict=False):
        assert len(done) <= taken + 6
    results.close()
    assert len(done) < 60


def test_prefetched_works_ahead() -> None:
    """The later items are computed while the consumer still holds the first."""
    started = threading.Event()

    def function(x: int) -> int:
        if x == 1:
            started.set()
        return x

    results = prefetched(function, range(3), ahead=2, threads=THREADS)
    assert next(results) == 0
    assert started.wait(timeout=5)
    assert list(results) == [1, 2]


def test_prefetched_raises_where_the_item_stands() -> None:
    results = prefetched(lambda x: 1 // x, [2, 1, 0, 1], ahead=4, threads=THREADS)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
