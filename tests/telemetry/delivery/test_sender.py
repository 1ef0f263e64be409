"""Delivery against a real server that answers as backends do: what is retried, halved, given up, and in which order."""

import gzip
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.delivery import backoff
from telemetry.delivery.backoff import BackendState
from telemetry.delivery.http import OtlpClient, Response
from telemetry.delivery.store import SPAN
from telemetry.delivery.writer import SpanWriter
from telemetry.settings import Settings
from telemetry.testing.receiver import Receiver, Request
from tests.processes import until
from tests.telemetry.spooling import hasten, settings, spooling


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def raw(request: Request) -> bytes:
    return gzip.decompress(request.body)


def refusing(word: bytes, status: int) -> Callable[[Request], int]:
    """A backend that chokes on whatever holds this word, unless it is a stub."""
    return lambda request: status if word in raw(request).replace(b"telemetry.dead_letter", b"") else 200


def names(receiver: Receiver) -> list[str]:
    return [span.name for span in receiver.spans]


def dead(writer: SpanWriter) -> list[str]:
    assert writer.spool.file
    return [letter.reason for letter in writer.spool.file.dead_letters()]


def send(receiver: Receiver, folder: Path, spans: int, poison: tuple[int, ...] = ()) -> list[str]:
    """End spans, some of them poisoned, wait until each has arrived; the reasons of the dead letters."""
    with spooling(receiver, folder) as (tracer, writer):
        for n in range(spans):
            tracer.start_span(f"s{n}", attributes={"text": "poison" if n in poison else "fine"}).end()
        receiver.wait(lambda found: {f"s{n}" for n in range(spans)} <= {span.name for span in found}, 30)
        return dead(writer)


def test_all_spans_arrive_once_and_in_order(receiver: Receiver, tmp_path: Path) -> None:
    """Nothing is lost, doubled or reordered, and nothing stays on disk."""
    with spooling(receiver, tmp_path) as (tracer, _):
        for n in range(500):
            tracer.start_span(f"s{n}").end()
    assert names(receiver) == [f"s{n}" for n in range(500)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_one_poisoned_span_is_found_among_many(receiver: Receiver, tmp_path: Path, status: int) -> None:
    """The batch is halved down to it; it goes to the dead letters, its stub and all others arrive, once."""
    receiver.answer = refusing(b"poison", status)
    [reason] = send(receiver, tmp_path, 40, poison=(17,))
    assert reason.startswith(str(status))
    assert sorted(names(receiver)) == sorted(f"s{n}" for n in range(40))
    [stub] = [span for span in receiver.spans if span.name == "s17"]
    assert stub.attributes["telemetry.dead_letter"] == reason
    assert "text" not in stub.attributes


def test_poisoned_spans_side_by_side_are_all_found(receiver: Receiver, tmp_path: Path) -> None:
    """The ones after a poisoned span may be of the same kind: others are tried as well."""
    receiver.answer = refusing(b"poison", 400)
    assert len(send(receiver, tmp_path, 20, poison=(3, 4, 5, 6))) == 4


@pytest.mark.parametrize("status", [400, 413, 500, 401, 404, 503])
def test_nothing_is_given_up_while_everything_is_refused(receiver: Receiver, tmp_path: Path, status: int) -> None:
    """A backend that takes nothing is no judge of a span: all wait, and arrive when it is well."""
    receiver.answer = status
    with spooling(receiver, tmp_path) as (tracer, writer):
        for n in range(10):
            tracer.start_span(f"s{n}").end()
        until(lambda: len(receiver.requests) > 30)
        assert dead(writer) == []
        receiver.answer = 200
        receiver.wait(10)
        assert dead(writer) == []
    assert sorted(names(receiver)) == [f"s{n}" for n in range(10)]


@pytest.mark.parametrize("status", [401, 404, 429, 502, 503])
def test_order_outlives_a_refusal(receiver: Receiver, tmp_path: Path, status: int) -> None:
    """Spans that waited for the backend come in the order in which they ended."""
    receiver.answer = status
    with spooling(receiver, tmp_path) as (tracer, _):
        for n in range(10):
            tracer.start_span(f"s{n}").end()
        until(lambda: len(receiver.requests) > 5)
        receiver.answer = 200
        receiver.wait(10)
    assert names(receiver) == [f"s{n}" for n in range(10)]


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8"])
def test_a_web_page_is_no_acceptance(receiver: Receiver, tmp_path: Path, kind: str) -> None:
    """Behind a login page that answers 200 the spans wait, health says why, and they arrive once it is gone."""
    receiver.answer = 200, {"Content-Type": kind}
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("kept").end()
        until(lambda: writer.backend.failures > 3)
        assert writer.backend.summary == "refusing"
        assert writer.backend.last_error
        assert writer.backend.last_error[1] == "200 with a web page"
        assert writer.spool.file
        assert (writer.spool.file.rows, writer.backend.accepted) == (1, 0)
        receiver.answer = 200
        receiver.wait(1)
    assert names(receiver) == ["kept"]


def test_a_stub_that_is_refused_has_no_stub(receiver: Receiver, tmp_path: Path) -> None:
    """Where the ids themselves are refused nothing arrives of the span, and the queue moves on."""
    receiver.answer = lambda request: 400 if b"bad" in raw(request) else 200
    with spooling(receiver, tmp_path) as (tracer, writer):
        for name in ("bad", "good", "better"):
            tracer.start_span(name).end()
        receiver.wait(2)
        until(lambda: writer.spool.file and writer.spool.file.is_empty)
        assert len(dead(writer)) == 1
        assert writer.backend.dead_letters == 1
    assert names(receiver) == ["good", "better"]


def test_a_request_keeps_below_the_limit(receiver: Receiver, tmp_path: Path) -> None:
    """Batches are cut by bytes; a span above the limit goes alone."""
    receiver.answer = 503
    with spooling(receiver, tmp_path, max_request_bytes=10_000) as (tracer, writer):
        for n in range(20):
            tracer.start_span(f"s{n}", attributes={"text": "x" * (30_000 if n == 7 else 3_000)}).end()
        until(lambda: writer.spool.file and writer.spool.file.rows == 20)
        receiver.answer = 200
        receiver.wait(20)
    sizes = [len(raw(request)) for request in receiver.requests if request.status == 200]
    assert sorted(size > 10_000 for size in sizes)[-2:] == [False, True]


def test_a_limit_that_was_met_is_remembered(receiver: Receiver, tmp_path: Path) -> None:
    """After the first refusals no batch comes near the size that was too large."""
    receiver.answer = lambda request: 413 if len(raw(request)) > 20_000 else 200
    with spooling(receiver, tmp_path) as (tracer, writer):
        for n in range(200):
            tracer.start_span(f"s{n}", attributes={"text": "x" * 3_000}).end()
        receiver.wait(200)
        assert dead(writer) == []
    statuses = [request.status for request in receiver.requests]
    assert 413 not in statuses[len(statuses) // 2 :]


def test_the_wait_grows_and_heeds_the_backend() -> None:
    """Each failure waits longer, a Retry-After as long as it says, wrong keys as long as a person needs."""
    backend = BackendState(max_request_bytes=1)
    waits = [backend.back_off(Response(503)) for _ in range(12)]
    assert waits[0] < waits[3]
    assert max(waits) <= backoff.MAX_DELAY_S * 1.2
    assert backend.back_off(Response(429, retry_after_s=77)) == 77
    backend.record_response(Response(200), 1)
    assert not backend.is_down


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("99999", 3600), ("soon", 0), ("-3", 0), ("nan", 0)])
def test_retry_after_is_read(receiver: Receiver, tmp_path: Path, value: str, seconds: float) -> None:
    """Seconds are taken within reason, nonsense is none."""
    receiver.answer = (429, {"Retry-After": value})
    answer = OtlpClient(settings(receiver.endpoint, tmp_path)).post(b"")
    assert (answer.status, answer.retry_after_s) == (429, seconds)


def test_retry_after_may_be_a_date(receiver: Receiver, tmp_path: Path) -> None:
    """A date in the future is a wait, one in the past is none."""
    receiver.answer = (503, {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})
    assert OtlpClient(settings(receiver.endpoint, tmp_path)).post(b"").retry_after_s == 3600
    receiver.answer = (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert OtlpClient(settings(receiver.endpoint, tmp_path)).post(b"").retry_after_s == 0


def test_a_redirect_is_shown_and_not_followed(receiver: Receiver, tmp_path: Path) -> None:
    """Spans and keys go to the address that was set and to no other."""
    receiver.answer = (307, {"Location": receiver.endpoint + "/v1/traces"})
    answer = OtlpClient(settings(receiver.endpoint, tmp_path)).post(b"")
    assert (answer.status, answer.is_config_error, len(receiver.requests)) == (307, True, 1)


def test_an_answer_that_breaks_off_is_none(receiver: Receiver, tmp_path: Path) -> None:
    """Rather twice than lost."""
    receiver.answer = Receiver.half
    assert OtlpClient(settings(receiver.endpoint, tmp_path)).post(b"").status is None


def test_a_password_file_does_not_replace_the_keys(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ~/.netrc says of the host is for others; our header goes as it is."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    OtlpClient(settings(receiver.endpoint, tmp_path, otlp_headers="authorization=Basic ours")).post(b"")
    assert receiver.requests[0].headers["authorization"] == "Basic ours"


@pytest.mark.parametrize(("compression", "encoding"), [("gzip", "gzip"), ("none", None)])
def test_compression_is_a_setting(receiver: Receiver, tmp_path: Path, compression: str, encoding: str | None) -> None:
    """gzip unless it is switched off."""
    with spooling(receiver, tmp_path, compression=compression) as (tracer, _):
        tracer.start_span("s").end()
    assert [request.headers.get("content-encoding") for request in receiver.requests] == [encoding]
    assert names(receiver) == ["s"]


def test_langfuse_is_told_its_version(receiver: Receiver, tmp_path: Path) -> None:
    """With Langfuse's keys spans go to its path, with its header."""
    keys = {"langfuse_host": receiver.endpoint, "public_key": "pk", "secret_key": "sk"}
    chosen = Settings.model_validate({"spool_dir": tmp_path, **keys})
    assert OtlpClient(chosen).post(b"").accepted
    assert receiver.requests[0].headers["x-langfuse-ingestion-version"] == "4"


def test_what_a_dead_process_left_is_delivered(receiver: Receiver, tmp_path: Path) -> None:
    """The next process delivers it beside its own spans, and removes the file."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("left").end()
        until(lambda: writer.backend.is_down)
    assert len(list(tmp_path.glob("*.db"))) == 1
    receiver.answer = 200
    with spooling(receiver, tmp_path) as (tracer, _):
        tracer.start_span("own").end()
        receiver.wait(2)
        until(lambda: len(list(tmp_path.glob("*.db"))) == 1)
    assert sorted(names(receiver)) == ["left", "own"]
    assert list(tmp_path.iterdir()) == []


def test_the_dead_letters_of_a_dead_process_are_kept(receiver: Receiver, tmp_path: Path) -> None:
    """Who adopts a file takes over what the backend refused."""
    receiver.answer = refusing(b"poison", 400)
    assert len(send(receiver, tmp_path, 3, poison=(1,))) == 1
    [old] = tmp_path.glob("*.db")
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("own").end()
        until(lambda: not old.exists())
        assert len(dead(writer)) == 1
    assert writer.backend.dead_letters == 0


def test_one_spool_in_trouble_does_not_hold_up_another(receiver: Receiver, tmp_path: Path) -> None:
    """A poisoned span that is alone in its file waits for its proof while others go on."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("s", attributes={"text": "poison"}).end()
        until(lambda: writer.backend.is_down)
    receiver.answer = refusing(b"poison", 400)
    with spooling(receiver, tmp_path) as (tracer, writer):
        for n in range(5):
            tracer.start_span(f"s{n}").end()
            receiver.wait(lambda found, n=n: f"s{n}" in [span.name for span in found])
        until(lambda: dead(writer))
    assert writer.spool.memory.take(SPAN, 1, 1) == []


@pytest.mark.parametrize("damage", ["DROP TABLE waiting", "UPDATE waiting SET body = 'zzz'", "lock"])
def test_a_damaged_file_of_another_does_not_hold_up_delivery(receiver: Receiver, tmp_path: Path, damage: str) -> None:
    """Whatever is wrong with what a dead process left, this one's spans arrive."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        tracer.start_span("old").end()
        until(lambda: writer.backend.is_down)
    [old] = tmp_path.glob("*.db")
    if damage == "lock":
        old.with_suffix(".lock").write_bytes(b"\xff" * 16)
    else:
        with closing(sqlite3.connect(old)) as db:
            db.executescript(damage)
            db.commit()
    receiver.answer = 200
    with spooling(receiver, tmp_path) as (tracer, writer):
        for n in range(5):
            tracer.start_span(f"s{n}").end()
            receiver.wait(lambda found, n=n: f"s{n}" in [span.name for span in found])
        until(lambda: not old.exists())


def test_a_full_disk_and_a_span_that_is_refused(receiver: Receiver, tmp_path: Path) -> None:
    """Without room for a dead letter a stub stands for it, and what waits behind arrives, each span once."""
    receiver.answer = 503
    with spooling(receiver, tmp_path) as (tracer, writer):
        for n in range(30):
            tracer.start_span(f"s{n}", attributes={"text": "poison" if n in (0, 7) else "fine"}).end()
        until(lambda: writer.spool.file and writer.spool.file.lock.committed == 30)
        assert writer.spool.file
        writer.spool.file._write.execute("PRAGMA query_only = 1")  # no row can be written or deleted now
        receiver.answer = refusing(b"poison", 400)
        receiver.wait(lambda found: {f"s{n}" for n in range(30)} <= {span.name for span in found}, 30)
        until(lambda: writer.spool.file and writer.spool.file.is_empty)
        assert writer.backend.dead_letters == 2

    assert sorted(names(receiver)) == sorted(f"s{n}" for n in range(30))
    stubs = [span.name for span in receiver.spans if "telemetry.dead_letter" in span.attributes]
    assert sorted(stubs) == ["s0", "s7"]
