"""Traces that are kept or not when their end is known: held, decided once, brought back, adopted."""

import asyncio
import random
import threading
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from opentelemetry.trace import StatusCode, Tracer, format_trace_id, set_span_in_context

import telemetry
from telemetry.configure import activate, deactivate
from telemetry.delivery.writer import SpanWriter, SpoolProcessor
from telemetry.otel.request_filter import RequestFilter
from telemetry.pipeline import Pipeline
from telemetry.provider import build_provider
from telemetry.testing.receiver import Receiver
from tests.processes import until
from tests.telemetry.spooling import encode, hasten, settings, spooling


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def trace(tracer: Tracer, *, fails: bool = False, late: int = 0) -> tuple[str, list[object]]:
    """A trace of a root and two children; the ends of the last `late` spans are left to the caller."""
    root = tracer.start_span("root")
    inside = set_span_in_context(root)
    spans = [tracer.start_span(f"child-{n}", inside) for n in range(2)]
    if fails:
        spans[0].set_status(StatusCode.ERROR, "broken")
    spans.append(root)
    for span in spans[: len(spans) - late]:
        span.end()
    return format_trace_id(root.get_span_context().trace_id), list(spans[len(spans) - late :])


def whole(receiver: Receiver) -> dict[str, int]:
    """How many spans of each trace arrived."""
    found: dict[str, int] = {}
    for span in receiver.spans:
        found[span.trace_id] = found.get(span.trace_id, 0) + 1
    return found


def settled(writer: SpanWriter) -> bool:
    return writer.flush(60)


def test_spans_wait_for_the_verdict(receiver: Receiver, tmp_path: Path) -> None:
    """Nothing of a trace is sent before its end is known, all of it afterwards."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        kept, _ = trace(tracer)
        assert settled(writer)
        assert receiver.requests == []
        assert writer.keep_trace(kept, True)
        receiver.wait(3)
    assert whole(receiver) == {kept: 3}


def test_errors_are_always_kept(receiver: Receiver, tmp_path: Path) -> None:
    """An error anywhere in the trace keeps all of it, whatever is wanted."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        broken, _ = trace(tracer, fails=True)
        fine, _ = trace(tracer)
        also, _ = trace(tracer, fails=True)
        assert writer.keep_trace(broken, None)
        assert writer.keep_trace(also, False)
        assert not writer.keep_trace(fine, None)
    assert whole(receiver) == {broken: 3, also: 3}


def test_the_share_is_right_and_the_same_for_everybody(receiver: Receiver, tmp_path: Path) -> None:
    """Of many ordinary traces the set share is kept, whole, and two processes agree on which."""
    random.seed(7)
    with (
        spooling(receiver, tmp_path / "a", keep_rate=0.1) as (tracer, here),
        spooling(receiver, tmp_path / "b", keep_rate=0.1) as (_, there),
    ):
        traces = [trace(tracer)[0] for _ in range(200)]
        kept = {each for each in traces if here.keep_trace(each, None)}
        assert kept == {each for each in traces if there.keep_trace(each, None)}
    assert 8 <= len(kept) <= 36
    assert whole(receiver) == dict.fromkeys(kept, 3)


def test_spans_that_end_after_the_verdict_follow_it(receiver: Receiver, tmp_path: Path) -> None:
    """The server's span ends when its answer is out: it goes, or stays, with its trace."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        kept, [root] = trace(tracer, late=1)
        dropped, [other] = trace(tracer, late=1)
        writer.keep_trace(kept, True)
        writer.keep_trace(dropped, None)
        for span in (root, other):
            span.end()  # pyright: ignore[reportAttributeAccessIssue]
    assert whole(receiver) == {kept: 3}


def test_feedback_brings_a_dropped_trace_back(receiver: Receiver, tmp_path: Path) -> None:
    """Within the hold time a trace that was not kept is still there, whole."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        liked, _ = trace(tracer)
        assert not writer.keep_trace(liked, None)
        assert settled(writer)
        assert receiver.spans == []
        assert writer.keep_trace(liked, True)
    assert whole(receiver) == {liked: 3}


def test_what_is_brought_back_is_known(receiver: Receiver, tmp_path: Path) -> None:
    """Whoever brings a trace back is told whether there was anything left of it; once it is kept it stays so."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        liked, _ = trace(tracer)
        writer.keep_trace(liked, None)
        assert [writer.restore_trace(liked), writer.restore_trace(liked)] == [True, True]
        assert not writer.restore_trace("0" * 31 + "1")
    assert whole(receiver) == {liked: 3}


def test_a_dropped_trace_goes_after_the_hold_time(receiver: Receiver, tmp_path: Path) -> None:
    """Its rows are gone from the disk, and counted."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        dropped, _ = trace(tracer)
        writer.keep_trace(dropped, None)
        # Not before: what is undecided when its time is over is kept.
        writer.spool._settings = settings(receiver.endpoint, tmp_path, keep_rate=0, hold_s=0.2)
        until(lambda: writer.spool.dropped["not kept"] == 3)
        assert writer.spool.file
        assert writer.spool.file.held == (0, 0)
        assert not writer.restore_trace(dropped)
    assert receiver.spans == []
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_nobody_decides_about_is_kept(receiver: Receiver, tmp_path: Path) -> None:
    """What is not a turn, or lost its turn, is sent when the hold time is over."""
    with spooling(receiver, tmp_path, keep_rate=0, hold_s=0.2) as (tracer, _):
        orphan, _ = trace(tracer)
        receiver.wait(3)
    assert whole(receiver) == {orphan: 3}


def test_the_next_process_keeps_what_was_undecided(receiver: Receiver, tmp_path: Path) -> None:
    """Undecided traces of a process that is gone are sent; dropped ones wait for their time or for feedback."""
    with spooling(receiver, tmp_path, keep_rate=0) as (tracer, writer):
        undecided, _ = trace(tracer)
        dropped, _ = trace(tracer)
        liked, _ = trace(tracer)
        writer.keep_trace(dropped, None)
        writer.keep_trace(liked, None)
    assert receiver.spans == []
    with spooling(receiver, tmp_path, keep_rate=0) as (_, writer):
        writer.start()
        receiver.wait(3)
        writer.keep_trace(liked, True)
        receiver.wait(6)
    assert whole(receiver) == {undecided: 3, liked: 3}


def test_without_the_setting_nothing_is_held(receiver: Receiver, tmp_path: Path) -> None:
    """Every span goes at once, and every trace is kept."""
    with spooling(receiver, tmp_path) as (tracer, writer):
        ordinary, _ = trace(tracer)
        assert writer.keep_trace(ordinary, None)
    assert whole(receiver) == {ordinary: 3}


def test_many_turns_end_at_once(receiver: Receiver, tmp_path: Path) -> None:
    """Verdicts from many threads: each trace is whole or not there."""
    kept: set[str] = set()
    with spooling(receiver, tmp_path, keep_rate=0.5) as (tracer, writer):

        def turns() -> None:
            for _ in range(30):
                each, _ = trace(tracer)
                if writer.keep_trace(each, None):
                    kept.add(each)

        threads = [threading.Thread(target=turns) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert whole(receiver) == dict.fromkeys(kept, 3)


async def take(turn: telemetry.Turn[str], error: Exception | None = None) -> telemetry.Turn[str]:
    async def work(_: telemetry.Turn[str]) -> None:
        if error:
            raise error

    turn.start(work)
    async for _ in turn:
        pass
    return turn


async def test_a_turn_decides_when_it_ends(receiver: Receiver, tmp_path: Path) -> None:
    """Failed and slow turns are kept, of the ordinary ones the share; before its end a turn is pending."""
    chosen = settings(receiver.endpoint, tmp_path, keep_rate=0, slow_s=60)
    last = SpoolProcessor(chosen, encode, 0.01)
    provider = build_provider(chosen, "test", [last])
    activate(Pipeline(provider), chosen, RequestFilter(last), last)
    make = partial(telemetry.Turn, "agent", session_id="t-1")
    try:
        ordinary = make(run_id=uuid4())
        assert ordinary.sampled == "pending"
        assert not (await take(ordinary)).kept
        slow = make(run_id=uuid4())
        slow._started -= 61
        await take(slow)
        failed = await take(make(run_id=uuid4()), ValueError("broken"))
    finally:
        deactivate()
        await asyncio.to_thread(provider.shutdown)
    kept = [turn.trace.trace_id for turn in (slow, failed) if turn.kept and turn.trace]
    assert len(kept) == 2
    assert whole(receiver).keys() == set(kept)
