"""One request, before backends that drip, lie, flood, or have an authority of their own."""

import gzip
import json
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider

from telemetry.backends import http_client
from telemetry.backends.langfuse import LangfuseScores, connect
from telemetry.delivery.backoff import BackendState
from telemetry.delivery.http import OtlpClient, Response
from telemetry.delivery.writer import SpanWriter, SpoolProcessor
from telemetry.scores.score import Score
from telemetry.settings import Settings
from tests.processes import until
from tests.telemetry.spooling import encode, hasten, settings

TRACE = "0af7651916cd43dd8448eb211c80319c"


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that answers each connection by hand."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.recv(65536)
                    answer(connection)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def http_server(
    status: int, body: bytes, tls: ssl.SSLContext | None = None, headers: Mapping[str, str] = {}
) -> Iterator[str]:
    """A server that gives everybody the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def drip_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def drip_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\nx\r\n")
        time.sleep(0.1)


def say_nothing(_: socket.socket) -> None:
    time.sleep(30)


@pytest.mark.parametrize("answer", [drip_body, drip_headers, drip_chunks, say_nothing])
def test_a_request_is_given_up_in_time(tmp_path: Path, answer: Callable[[socket.socket], None]) -> None:
    """The timeout is one for the whole request, however few bytes come at a time; the next one is not troubled."""
    with raw_server(answer) as url:
        client = OtlpClient(settings(url, tmp_path, timeout=0.5))
        for _ in range(2):
            began = time.monotonic()
            assert client.post(b"") == Response(None, "no answer in time")
            assert time.monotonic() - began < 10


def test_a_slow_response_within_the_time_is_read(tmp_path: Path) -> None:
    """A response that takes its time, and not too much, is a response."""

    def slowly(connection: socket.socket) -> None:
        for part in (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n\r\n", b"{", b"}"):
            connection.sendall(part)
            time.sleep(0.05)

    with raw_server(slowly) as url:
        assert OtlpClient(settings(url, tmp_path, timeout=60)).post(b"").accepted


def test_spans_arrive_once_the_backend_stops_dripping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A span whose request was given up is sent again."""
    hasten(monkeypatch)
    asked: list[float] = []

    def answer(connection: socket.socket) -> None:
        asked.append(time.monotonic())
        if len(asked) < 3:
            drip_body(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw_server(answer) as url, spooling_to(url, tmp_path) as writer:
        until(lambda: writer.backend.accepted == 1)
        assert writer.backend.last_error
        assert writer.backend.last_error[1] == "no answer in time"


@contextmanager
def spooling_to(url: str, folder: Path) -> Iterator[SpanWriter]:
    """The writer of a process that has ended one span."""
    processor = SpoolProcessor(settings(url, folder, timeout=1), encode, interval_s=0.01)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.get_tracer("test").start_span("s").end()
    try:
        yield processor.writer
    finally:
        provider.shutdown()


def partial(rejected: int, message: str) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = message
    return answer.SerializeToString()


PARTIAL = [
    (partial(1, "span is too old"), 1),
    (json.dumps({"partialSuccess": {"rejectedSpans": "1", "errorMessage": "span is too old"}}).encode(), 1),
    (json.dumps({"partialSuccess": {"rejectedSpans": 1, "errorMessage": "span is too old"}}).encode(), 1),
    (partial(0, "be warned"), 0),
    (b"{}", 0),
    (b'{"partialSuccess": {}}', 0),
    (b'{"partialSuccess": null}', 0),
    (b'{"partialSuccess": {"rejectedSpans": "many"}}', 0),
    (b"[1]", 0),
    (b"ok", 0),
    (b"", 0),
]


@pytest.mark.parametrize(("body", "rejected"), PARTIAL)
def test_spans_that_the_backend_threw_away_are_known(tmp_path: Path, body: bytes, rejected: int) -> None:
    """A success that is partial says how many spans were lost, in protobuf or JSON; any other body says nothing."""
    with http_server(200, body) as url:
        response = OtlpClient(settings(url, tmp_path)).post(b"")
    assert (response.accepted, response.rejected) == (True, rejected)
    assert ("too old" in response.text) == bool(rejected)


def test_spans_that_the_backend_threw_away_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """They are no success; each reason is logged once."""
    state = BackendState()
    for _ in range(3):
        state.record_response(Response(200, "span is too old", rejected=2), 10)
    assert (state.accepted, state.rejected, state.is_down) == (24, 6, False)
    assert state.last_error
    assert state.last_error[1] == "200 span is too old"
    assert len([record for record in caplog.records if "too old" in record.message]) == 1


def sent(settings: Settings, environment: str | None, score: Score) -> Response:
    """What a Langfuse with these settings says to a score."""
    with closing(LangfuseScores(settings, environment)) as backend:
        return backend.send(score)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate of our own for localhost, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost"
            " -addext subjectAltName=DNS:localhost"
        ),
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


@pytest.mark.parametrize("bundle", [None, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_backends_own_authority_is_trusted(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str | None
) -> None:
    """The setting of the exporter holds, whatever the machine says of other requests: for spans and for scores."""
    other = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    if bundle and Path(other).exists():
        monkeypatch.setenv(bundle, other)
    monkeypatch.setenv("NO_PROXY", "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "c.pem", authority / "k.pem")
    created = json.dumps({"accepted": 1, "rejected": 0, "errors": []}).encode()
    with http_server(200, created, tls, {"Content-Type": "application/json"}) as url:
        trusting = settings(url, tmp_path, certificate=str(authority / "c.pem"))
        assert OtlpClient(trusting).post(b"").accepted
        assert "TLS failed" in str(OtlpClient(settings(url, tmp_path)).post(b""))
        keys = {"langfuse_host": url, "public_key": "pk-own", "secret_key": "sk-own", "timeout": 60}
        score = Score(name="mood", value=1, trace_id=TRACE)
        chosen = Settings.model_validate({**keys, "certificate": str(authority / "c.pem")})
        assert sent(chosen, None, score).accepted
        assert sent(Settings.model_validate(keys), None, score).status is None


@pytest.mark.parametrize("packed", [True, False])
def test_a_flood_is_not_read(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """What the Langfuse SDK asks for is read up to a bound, packed or not."""
    monkeypatch.setattr(http_client, "MAX_RESPONSE_BYTES", 100_000)
    body = b" " * 50_000_000 if packed else b" " * 1_000_000
    headers = {"Content-Encoding": "gzip"} if packed else {}
    with http_server(200, gzip.compress(body) if packed else body, headers=headers) as url:
        chosen = Settings.model_validate({"langfuse_host": url, "public_key": "pk-flood", "secret_key": "sk"})
        with pytest.raises(Exception, match="more than 100000 bytes"), connect(chosen) as api:
            api.projects.get()
        assert "more than 100000 bytes" in str(sent(chosen, None, Score(name="a", value=1, trace_id=TRACE)))


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_an_ordinary_response_is_read_whole(encoding: str) -> None:
    """Packed or not, the SDK gets what was sent."""
    body = json.dumps({"accepted": 1, "rejected": 0, "errors": []}).encode()
    packed = gzip.compress(body) if encoding == "gzip" else body
    with http_server(200, packed, headers={"Content-Type": "application/json", "Content-Encoding": encoding}) as url:
        chosen = Settings.model_validate({"langfuse_host": url, "public_key": "pk-plain", "secret_key": "sk"})
        assert sent(chosen, None, Score(name="a", value=1, trace_id=TRACE)) == Response(200)


def test_a_dripping_response_to_the_sdk_is_given_up() -> None:
    """A body that comes byte by byte does not hold the thread of scores."""
    with raw_server(drip_body) as url:
        keys = {"langfuse_host": url, "public_key": "pk-drip", "secret_key": "sk", "timeout": 1}
        response = sent(Settings.model_validate(keys), None, Score(name="a", value=1, trace_id=TRACE))
        assert response.status is None
        assert "no answer in time" in response.text


def test_settings_below_a_path() -> None:
    """A Langfuse below a path is told its version too, and an address that is taken whole keeps its slash."""
    keys = {"LANGFUSE_PUBLIC_KEY": "pk-lf-a", "LANGFUSE_SECRET_KEY": "sk-lf-b"}
    for host in ("https://host.example/langfuse", "https://host.example/langfuse/", "https://host.example"):
        below = Settings.model_validate({**keys, "LANGFUSE_HOST": host})
        assert below.headers["x-langfuse-ingestion-version"] == "4"
        assert below.endpoint == f"{host.rstrip('/')}/api/public/otel/v1/traces"
    whole = "https://host.example/otlp/v1/traces/"
    assert Settings.model_validate({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": whole}).endpoint == whole
    base = Settings.model_validate({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://host.example/otlp/"})
    assert base.endpoint == "https://host.example/otlp/v1/traces"


def test_what_a_backend_quotes_is_redacted() -> None:
    """The reason of a rejection, which is logged, shown and kept on disk, has no secret, not even a part of one."""
    key = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzAbC"
    for text in (f"bad attribute {key}", "x" * 280 + f" {key}", f'{{"password": "{key}"}}'):
        said = str(Response(400, text))
        assert "ghp_" not in said
        assert said.startswith("400 ")
