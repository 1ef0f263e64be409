"""What the end of a span costs the program, and where spans are when things break."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import telemetry
from telemetry.configure import activate, deactivate
from telemetry.delivery import spool
from telemetry.delivery import writer as writer_module
from telemetry.delivery.intake import accept
from telemetry.delivery.scores import ScoreStore
from telemetry.delivery.store import SPAN, SpoolStore
from telemetry.delivery.writer import SpanWriter, SpoolProcessor, destination
from telemetry.export.stages import build_redact_stage
from telemetry.otel.request_filter import RequestFilter
from telemetry.pipeline import Pipeline
from telemetry.provider import build_provider
from telemetry.settings import Settings
from telemetry.testing import Recorded
from telemetry.testing.receiver import Receiver
from tests.processes import ROOT, until
from tests.telemetry.spooling import encode, hasten, settings, spooling


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def names(receiver: Receiver) -> list[str]:
    return [span.name for span in receiver.spans]


def test_ending_a_span_prepares_nothing(receiver: Receiver, tmp_path: Path) -> None:
    """Whoever ends a span only enqueues it: the work is done by the writer's thread."""
    threads: set[str] = set()

    def prepare(spans: Sequence[ReadableSpan]) -> list[bytes]:
        threads.add(threading.current_thread().name)
        return encode(spans)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(last := SpoolProcessor(settings(receiver.endpoint, tmp_path), prepare, 0.01))
    for n in range(50):
        provider.get_tracer("test").start_span(f"s{n}").end()
    until(lambda: last.writer.pending == 0)
    provider.shutdown()
    assert threads == {"telemetry-spool"}


def test_one_redactor_serves_all_batches(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Recorded
) -> None:
    """What front ends send passes one redactor of the process, however many requests it comes in: to make one costs."""
    made, make = [], build_redact_stage
    monkeypatch.setattr(writer_module, "build_redact_stage", lambda chosen: made.append(chosen) or make(chosen))
    chosen = settings(receiver.endpoint, tmp_path)
    last = SpoolProcessor(chosen, encode, 0.01)
    provider = build_provider(chosen, "test", [last])
    with telemetry.span("sk-proj-" + "a1B2" * 12):
        pass
    [body] = encode(spans.settled())
    deactivate()
    activate(Pipeline(provider), chosen, RequestFilter(last), last)
    try:
        assert [accept(body, "application/x-protobuf", None, 10_000) for _ in range(3)] == [1, 1, 1]
    finally:
        deactivate()
        provider.shutdown()
    assert len(made) == 1
    assert len(receiver.spans) == 3
    assert not any("a1B2" in span.name for span in receiver.spans)


def test_memory_is_bounded_when_the_writer_falls_behind(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bound whoever ends a span writes some himself, oldest first: none is dropped, the order is kept."""
    monkeypatch.setattr(writer_module, "MAX_PENDING", 20)
    with spooling(receiver, tmp_path) as (tracer, writer):
        pending = []
        for n in range(300):
            tracer.start_span(f"s{n}", attributes={"text": "x" * 50_000}).end()
            pending.append(writer.pending)
        assert max(pending) <= 21
    assert names(receiver) == [f"s{n}" for n in range(300)]


def test_write_through_leaves_nothing_in_memory(receiver: Receiver, tmp_path: Path) -> None:
    """With the switch a span is on disk when its end returns."""
    receiver.answer = 503
    with spooling(receiver, tmp_path, spool_write_through=True) as (tracer, writer):
        for n in range(1, 20):
            tracer.start_span("s").end()
            assert writer.spool.file
            assert (writer.pending, writer.spool.file.lock.committed) == (0, n)


def test_the_spool_is_looked_after_while_the_backend_is_left_alone(receiver: Receiver, tmp_path: Path) -> None:
    """A backend that asks for an hour of patience gets it; what is too old goes meanwhile, and figures are of now."""
    receiver.answer = (429, {"Retry-After": "3600"})
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("s").end()
        until(lambda: writer.backend.is_down)
        writer.spool._settings = settings(receiver.endpoint, tmp_path, spool_max_age=0.5)
        until(lambda: writer.spool.dropped["too old"] == 1)
        until(lambda: writer.spool.folder.waiting.rows == 0)
    assert len(receiver.requests) == 1


def test_files_for_another_backend_go_when_they_are_too_old(receiver: Receiver, tmp_path: Path) -> None:
    """After a change of endpoint or key nobody sends what is left: it is counted and removed, as is what is corrupt."""
    left = SpoolStore.create(tmp_path, "elsewhere")
    left.append(SPAN, [(1.0, b"a"), (2.0, b"b")])
    left.close()
    (tmp_path / "broken.corrupt").touch()
    ScoreStore(tmp_path / "scores-langfuse-elsewhere.sqlite").put("a", "{}")
    with spooling(receiver, tmp_path, spool_max_age=0.5) as (_, writer):
        writer.start()
        until(lambda: writer.spool.dropped["for another backend"] == 2)
        until(lambda: writer.spool.dropped["unreadable files"] == 1)
        until(lambda: writer.spool.dropped["scores for another backend"] == 1)
        assert [path for path in tmp_path.iterdir() if "elsewhere" in path.name or "broken" in path.name] == []


def test_fsync_is_a_switch(receiver: Receiver, tmp_path: Path) -> None:
    """With it each commit waits for the disk, without it none does."""
    for switch, expected in ((True, 2), (False, 1)):
        with spooling(receiver, tmp_path, spool_fsync=switch) as (tracer, writer):
            tracer.start_span("s").end()
            writer.start()
            assert writer.spool.file
            assert writer.spool.file._write.execute("PRAGMA synchronous").fetchone() == (expected,)


def test_without_a_writable_folder_spans_stay_in_memory(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, with what to do, and delivers all the same."""
    (tmp_path / "file").touch()
    with spooling(receiver, tmp_path / "file" / "spool") as (tracer, writer):
        for n in range(10):
            tracer.start_span(f"s{n}").end()
        receiver.wait(10)
        assert writer.spool.file is None
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "set TELEMETRY_SPOOL_DIR to a writable folder" in record.message


def test_memory_that_fills_up_lets_go_of_the_oldest(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a disk and without a backend the youngest spans remain, the others are counted."""
    monkeypatch.setattr(spool, "MEMORY_BYTES", 100_000)
    receiver.answer = 503
    with spooling(receiver, tmp_path, spool=False) as (tracer, writer):
        for n in range(100):
            tracer.start_span(f"s{n}", attributes={"text": "x" * 5_000}).end()
        writer.flush(0)
        dropped = writer.spool.dropped["too many bytes"]
        receiver.answer = 200
        receiver.wait(lambda found: found[-1:] and found[-1].name == "s99")
    assert 70 < dropped < 90
    # Beside these come at most those that were on their way when they were dropped.
    assert names(receiver)[dropped - 100 :] == [f"s{n}" for n in range(dropped, 100)]


def test_a_spool_that_fills_up_lets_go_of_the_oldest(receiver: Receiver, tmp_path: Path) -> None:
    """The file keeps to its bound, the youngest spans remain, the others are counted."""
    receiver.answer = 503
    with spooling(receiver, tmp_path, spool_max_bytes=1_000_000) as (tracer, writer):
        for n in range(100):
            tracer.start_span(f"s{n}", attributes={"text": "x" * 50_000}).end()
        writer.flush(0)
        assert writer.spool.file
        assert writer.spool.file.size <= 1_000_000
        dropped = writer.spool.dropped["too many bytes"]
        receiver.answer = 200
        receiver.wait(lambda found: found[-1:] and found[-1].name == "s99")
    # Beside these come at most those that were on their way when they were dropped.
    assert names(receiver)[dropped - 100 :] == [f"s{n}" for n in range(dropped, 100)]


def test_a_span_that_waited_too_long_goes(receiver: Receiver, tmp_path: Path) -> None:
    """The spool is bounded in age, and what went is counted."""
    receiver.answer = 503
    with spooling(receiver, tmp_path, spool_max_age=0.5) as (tracer, writer):
        tracer.start_span("old").end()
        until(lambda: writer.spool.dropped["too old"] == 1)
        assert writer.spool.file
        assert writer.spool.file.is_empty


def test_a_spool_file_that_breaks_is_replaced(receiver: Receiver, tmp_path: Path) -> None:
    """What cannot be read is set aside; what ends from then on is written and delivered."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("lost").end()
        until(lambda: writer.backend.is_down)
        assert writer.spool.file
        writer.spool.file._write.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database = tmp_path / f"{writer.spool.file.name}.db"
        with database.open("r+b") as raw:
            raw.write(b"\xff" * database.stat().st_size)
        until(lambda: _end_one_more(tracer, writer))
        receiver.answer = 200
        receiver.wait(lambda found: "late" in [span.name for span in found])
    assert [path.name for path in tmp_path.glob("*.corrupt")] == [f"{database.stem}.corrupt"]


def _end_one_more(tracer: object, writer: SpanWriter) -> bool:
    tracer.start_span("late").end()  # pyright: ignore[reportAttributeAccessIssue]
    return writer.spool.set_aside == 1


def test_unsampled_spans_are_not_kept(receiver: Receiver, tmp_path: Path) -> None:
    """What the sampler left out costs no disk."""
    last = SpoolProcessor(settings(receiver.endpoint, tmp_path), encode)
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(last)
    provider.get_tracer("test").start_span("s").end()
    provider.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_force_flush_tells_whether_the_backend_has_it(receiver: Receiver, tmp_path: Path) -> None:
    """True once all was accepted; false at once where the backend is down."""
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("s1").end()
        assert writer.flush(60)
        assert names(receiver) == ["s1"]
        receiver.answer = 503
        tracer.start_span("s2").end()
        until(lambda: writer.backend.is_down)
        assert not writer.flush(600)


def test_shutdown_does_not_wait_for_a_backend_that_is_down(receiver: Receiver, tmp_path: Path) -> None:
    """What is left stays on disk, whole."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        for n in range(20):
            tracer.start_span(f"s{n}").end()
        until(lambda: writer.backend.is_down)
        requests = len(receiver.requests)
    assert len(receiver.requests) <= requests + 2
    assert len(list(tmp_path.glob("*.db"))) == 1


def test_a_span_after_the_end_is_counted(receiver: Receiver, tmp_path: Path) -> None:
    """Nothing breaks, nothing is kept, and the figures say so."""
    with spooling(receiver, tmp_path) as (tracer, writer):
        late = tracer.start_span("late")
    late.end()
    assert writer.spool.dropped["after the end"] == 1


def test_destinations_differ_by_backend_and_by_whose_it_is() -> None:
    """A new secret key is the same destination; another address or project is another one."""
    here = Settings.model_validate({"langfuse_host": "http://a", "public_key": "pk-1", "secret_key": "sk-1"})
    rotated = Settings.model_validate({"langfuse_host": "http://a", "public_key": "pk-1", "secret_key": "sk-2"})
    other = Settings.model_validate({"langfuse_host": "http://a", "public_key": "pk-2", "secret_key": "sk-1"})
    plain = Settings.model_validate({"otlp_endpoint": "http://a"})
    assert destination(here) == destination(rotated)
    assert len({destination(each) for each in (here, other, plain)}) == 3


FORKING = """
import os, sys, time
import telemetry
from telemetry import pipeline

telemetry.configure("fork")
tracer = pipeline.tracer()
for n in range(50):
    tracer.start_span(f"before-{n}").end()
child = os.fork()
who = "parent" if child else "child"
for n in range(50):
    tracer.start_span(f"{who}-{n}").end()
if child:
    status = os.waitpid(child, 0)[1]
telemetry.shutdown()
os._exit(0 if not child else status)
"""


def test_a_fork_after_start_doubles_and_loses_nothing(receiver: Receiver, tmp_path: Path) -> None:
    """The child has a file of its own and nothing of its parent's queue."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
        "PATH": os.environ["PATH"],
    }
    subprocess.run([sys.executable, "-c", FORKING], cwd=ROOT, env=environ, check=True, timeout=60)
    expected = [f"{who}-{n}" for who in ("before", "child", "parent") for n in range(50)]
    assert sorted(names(receiver)) == sorted(expected)
    assert list((tmp_path / "spool").iterdir()) == []


def test_many_threads_end_spans_at_once(receiver: Receiver, tmp_path: Path) -> None:
    """Each span arrives once, whoever ended it."""
    with spooling(receiver, tmp_path) as (tracer, _):

        def end_some(who: int) -> None:
            for n in range(200):
                tracer.start_span(f"{who}-{n}").end()

        threads = [threading.Thread(target=end_some, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(names(receiver)) == sorted(f"{who}-{n}" for who in range(8) for n in range(200))


def test_the_lag_to_disk_is_measured(receiver: Receiver, tmp_path: Path) -> None:
    """Every span's way from its end to its commit is known."""
    with spooling(receiver, tmp_path) as (tracer, writer):
        began = time.time()
        for _ in range(10):
            tracer.start_span("s").end()
        until(lambda: len(writer.lags) == 10)
        assert all(0 <= lag <= time.time() - began for lag in writer.lags)
