"""Age, while the clock of the machine is set."""

import time
from pathlib import Path

import pytest

from telemetry.delivery import clock
from telemetry.delivery.clock import SteadyClock
from telemetry.testing.receiver import Receiver
from tests.processes import until
from tests.telemetry.spooling import hasten, spooling

DAY = 86_400.0


@pytest.mark.parametrize("days", [8, -8, 3650, -3650])
def test_a_clock_that_jumps_makes_nothing_old(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Spans that ended before, during and after the jump all arrive, once the backend is well."""
    hasten(monkeypatch)
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("before").end()
        until(lambda: writer.backend.is_down)
        true = time.time
        with monkeypatch.context() as jump:
            jump.setattr(time, "time", lambda: true() + days * DAY)
            tracer.start_span("during").end()
            rounds = writer.spool._rounds
            until(lambda: writer.spool._rounds > rounds + 3)
        tracer.start_span("after").end()
        rounds = writer.spool._rounds
        until(lambda: writer.spool._rounds > rounds + 3)
        receiver.answer = 200
        receiver.wait(3)
        assert not +writer.spool.dropped
    assert sorted(span.name for span in receiver.spans) == ["after", "before", "during"]


def test_a_clock_that_was_put_right_is_believed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine started with may have been wrong: a time that lasts is the right one."""
    monkeypatch.setattr(clock, "BELIEVED_AFTER_S", 0.05)
    steady = SteadyClock()
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + 8 * DAY)
    assert abs(steady.now() - true()) < 10
    until(lambda: abs(steady.now() - time.time()) < 10)


def test_small_corrections_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is kept in step is never far away."""
    steady = SteadyClock()
    true = time.time
    for drift in range(0, 300, 30):
        monkeypatch.setattr(time, "time", lambda drift=drift: true() + drift)
        assert abs(steady.now() - time.time()) < 10
