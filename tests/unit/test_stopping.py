"""Signals: the first is noted or raised, the second acts at once, an ignored one stays ignored."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from wsolbench import stopping
from wsolbench.stopping import StoppedError, StopRequest, stoppable

BOTH = (signal.SIGINT, signal.SIGTERM)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    # what runs in the background of a shell ignores the first one
    given = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in BOTH]
    yield
    assert [signal.getsignal(number) for number in BOTH] == before
    signal.signal(signal.SIGINT, given)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_the_second_acts(
    number: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "TOGETHER", 0.0)
    with stoppable(), StopRequest() as request:
        assert request.signal == 0
        send(number)
        assert request.signal == number
        with pytest.raises(StoppedError) as raised:
            send(number)
    assert raised.value.exit_code == 128 + number
    assert "once more stops at once" in capfd.readouterr().err


def test_a_signal_that_the_launcher_passes_on_again_is_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with stoppable(), StopRequest() as request:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            send(number)
        assert request.signal == signal.SIGTERM
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_an_ignored_signal_stays_ignored() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable(), StopRequest() as request:
            send(signal.SIGINT)
        assert request.signal == 0
    finally:
        signal.signal(signal.SIGINT, former)
