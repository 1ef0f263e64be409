"""The receiver, tried by real exporters and real sockets."""

import gzip
import threading
import time

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from telemetry.testing.receiver import PATHS, Receiver, Request
from tests.processes import until

EMPTY = {"content-type": "application/json"}


def send(receiver: Receiver, *names: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(receiver.endpoint + "/v1/traces", timeout=60)))
    for name in names:
        provider.get_tracer("test").start_span(name).end()
    provider.shutdown()


def post(receiver: Receiver, path: str = "/v1/traces", body: bytes = b"{}", timeout: float = 60) -> httpx.Response:
    return httpx.post(receiver.endpoint + path, content=body, headers=EMPTY, timeout=timeout, trust_env=False)


def post_in_vain(receiver: Receiver) -> None:
    with pytest.raises(httpx.TransportError):
        post(receiver, timeout=60)


def test_it_is_an_endpoint_by_the_standard_variable(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that is told nothing but OTEL_EXPORTER_OTLP_ENDPOINT reaches it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    with provider.get_tracer("test").start_as_current_span("hello"):
        pass
    provider.shutdown()
    assert [span.name for span in receiver.wait(1)] == ["hello"]
    [request] = receiver.requests
    assert (request.method, request.path, request.status) == ("POST", "/v1/traces", 200)
    assert request.headers["content-type"] == "application/x-protobuf"


def test_both_paths_are_served_and_no_other(receiver: Receiver) -> None:
    """OTLP's path and Langfuse's take spans; every other path is not found."""
    assert [post(receiver, path).status_code for path in (*PATHS, "/v1/metrics")] == [200, 200, 404]


def test_only_accepted_spans_count(receiver: Receiver) -> None:
    """Spans of a refused request are not among the spans, its request is kept."""
    receiver.answer = 400
    send(receiver, "lost")
    receiver.answer = 202
    send(receiver, "kept")
    assert [span.name for span in receiver.wait(1)] == ["kept"]
    assert [request.status for request in receiver.requests] == [400, 202]
    assert b"lost" in (receiver.requests[0].body)


def test_headers_can_be_answered(receiver: Receiver) -> None:
    """A status with headers is answered as given."""
    receiver.answer = (429, {"Retry-After": "7"})
    response = post(receiver)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


def test_a_function_may_answer(receiver: Receiver) -> None:
    """A function sees each request and answers it, with a fault too."""
    seen: list[Request] = []

    def twice_busy(request: Request) -> int:
        seen.append(request)
        return 503 if len(seen) < 3 else 200

    receiver.answer = twice_busy
    assert [post(receiver).status_code for _ in range(3)] == [503, 503, 200]
    receiver.answer = lambda _: Receiver.reset
    with pytest.raises(httpx.TransportError):
        post(receiver)


def test_a_reset_is_a_reset(receiver: Receiver) -> None:
    """The client sees the connection torn down, and the request is kept without a status."""
    receiver.answer = Receiver.reset
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        post(receiver)
    assert receiver.requests[0].status is None


def test_a_hang_lasts_until_the_client_or_the_receiver_gives_up() -> None:
    """No answer comes, and leaving the block ends the hang."""
    with Receiver(Receiver.hang) as receiver:
        with pytest.raises(httpx.ReadTimeout):
            post(receiver, timeout=0.2)
        waiting = threading.Thread(target=post_in_vain, args=(receiver,))
        waiting.start()
        until(lambda: len(receiver.requests) == 2)
    waiting.join(60)
    assert not waiting.is_alive()


def test_what_was_taken_is_answered() -> None:
    """A request that is being taken while the block is left has its answer: the client does not send it again."""
    entered, answers = threading.Event(), []

    def late(_: Request) -> int:
        entered.set()
        receiver._server.closing.wait()
        time.sleep(0.2)  # until every connection was hung up on
        return 200

    with Receiver(late) as receiver:
        sender = threading.Thread(target=lambda: answers.append(post(receiver, timeout=60).status_code))
        sender.start()
        assert entered.wait(60)
    sender.join(60)

    assert (answers, [request.status for request in receiver.requests]) == ([200], [200])


def test_an_idle_connection_does_not_keep_it_open() -> None:
    """Leaving the block ends at once though a client holds its connection."""
    with httpx.Client(trust_env=False) as client:
        with Receiver() as receiver:
            client.post(receiver.endpoint + "/v1/traces", content=b"{}", headers=EMPTY)
        with pytest.raises(httpx.TransportError):
            client.post(receiver.endpoint + "/v1/traces", content=b"{}", headers=EMPTY)


def test_what_is_malformed_is_refused(receiver: Receiver) -> None:
    """A body that is no trace request is a 400, and one that unpacks too far a 413, as with Langfuse."""
    assert post(receiver, body=b"[]").status_code == 400
    bomb = gzip.compress(bytes(65 * 1024 * 1024), compresslevel=1)
    headers = EMPTY | {"content-encoding": "gzip"}
    url = receiver.endpoint + "/v1/traces"
    assert httpx.post(url, content=bomb, headers=headers, trust_env=False).status_code == 413


def test_waiting_by_predicate(receiver: Receiver) -> None:
    """A wait ends when its predicate holds, whichever thread sends."""
    sender = threading.Thread(target=send, args=(receiver, "a", "b"))
    sender.start()
    spans = receiver.wait(lambda spans: any(span.name == "b" for span in spans))
    sender.join()
    assert {span.name for span in spans} == {"a", "b"}


def test_waiting_in_vain_shows_what_came(receiver: Receiver) -> None:
    """The error of a wait that ran out holds the tree of what has come."""
    send(receiver, "lonely")
    with pytest.raises(TimeoutError, match=r"1 spans.*\nlonely"):
        receiver.wait(2, timeout=0.05)


def test_many_senders_at_once(receiver: Receiver) -> None:
    """Requests of many threads are all kept."""
    threads = [threading.Thread(target=send, args=(receiver, str(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receiver.wait(8)) == len(receiver.requests) == 8
