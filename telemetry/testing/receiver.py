"""An OTLP receiver on loopback for tests: a real HTTP server that can fail as backends do."""

import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, ClassVar, Self, cast

from telemetry.delivery.http import is_html
from telemetry.export import otlp
from telemetry.testing.tree import span_tree

PATHS = ("/v1/traces", "/api/public/otel/v1/traces")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Fault(Enum):
    """What a broken backend does instead of answering."""

    HANG = "hang"
    RESET = "reset"
    HALF = "half"


@dataclass(frozen=True)
class Request:
    """One request as it arrived, with the status of its answer; None if it was not answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None = None


Answer = int | tuple[int, Mapping[str, str]] | Fault


class Receiver:
    """An OTLP endpoint on 127.0.0.1 that stores what it receives, for the duration of a `with` block.

    `answer` sets the answer to every further request: a status, a status with headers, `Receiver.hang`,
    `Receiver.reset`, `Receiver.half` (an answer that breaks off), or a function of the request that returns one of
    these. Header names are in lower case.
    """

    hang: ClassVar = Fault.HANG
    reset: ClassVar = Fault.RESET
    half: ClassVar = Fault.HALF

    def __init__(self, answer: Answer | Callable[[Request], Answer] = 200, port: int = 0) -> None:
        self.answer = answer
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._spans: list[otlp.Span] = []
        self._server = _Server(self._take, port)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="otlp-receiver")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """The base URL, as in `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, whatever their answer."""
        with self._changed:
            return list(self._requests)

    @property
    def spans(self) -> list[otlp.Span]:
        """The spans of all requests that were accepted."""
        with self._changed:
            return list(self._spans)

    def wait(self, until: int | Callable[[list[otlp.Span]], Any] = 1, timeout: float = 30) -> list[otlp.Span]:
        """Return the spans as soon as there are this many, or as soon as they satisfy a predicate.

        Raises TimeoutError, with the tree of the spans so far, if that does not happen in time.
        """
        enough = until if callable(until) else lambda spans: len(spans) >= until
        with self._changed:
            if not self._changed.wait_for(lambda: enough(list(self._spans)), timeout):
                raise TimeoutError(f"{len(self._spans)} spans after {timeout} s:\n{span_tree(self._spans)}")
            return list(self._spans)

    def _take(self, request: Request) -> Answer:
        answer, spans = self._judge(request)
        with self._changed:
            self._requests.append(replace(request, status=_status(answer)))
            self._spans.extend(spans)
            self._changed.notify_all()
        return answer

    def _judge(self, request: Request) -> tuple[Answer, list[otlp.Span]]:
        if request.method != "POST" or request.path not in PATHS:
            return 404, []
        answer = self.answer
        answer = answer(request) if callable(answer) else answer
        return _decoded(request, answer) if _takes(answer) else (answer, [])


def _decoded(request: Request, answer: Answer) -> tuple[Answer, list[otlp.Span]]:
    kind, encoding = request.headers.get("content-type", ""), request.headers.get("content-encoding")
    try:
        return answer, otlp.decode(request.body, kind, encoding)
    except otlp.TooLarge:
        return 413, []
    except otlp.Malformed:
        return 400, []


def _takes(answer: Answer) -> bool:
    is_page = isinstance(answer, tuple) and is_html(answer[1].get("Content-Type"))
    return (_status(answer) or 0) // 100 == 2 and not is_page


def _status(answer: Answer) -> int | None:
    match answer:
        case int():
            return answer
        case (status, _):
            return status
        case _:
            return None


class _Server(ThreadingTCPServer):
    daemon_threads = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, take: Callable[[Request], Answer], port: int) -> None:
        self.take = take
        self.closing = threading.Event()
        self._connections: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(RESET_ON_CLOSE)) == RESET_ON_CLOSE:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake every handler that waits for its client or for the end of a hang; received requests are answered."""
        self.closing.set()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        server = cast(_Server, self.server)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length := int(headers.get("content-length", 0)))
        if len(body) < length:  # the client has disconnected early, or the server is closing
            self.close_connection = True
            return
        answer = server.take(Request(self.command, self.path, headers, body))
        self.close_connection |= server.closing.is_set()
        match answer:
            case Fault.HANG:
                server.closing.wait()
                self.close_connection = True
            case Fault.RESET:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                self.close_connection = True
            case Fault.HALF:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
                self.close_connection = True
            case (status, more):
                self._answer(status, more)
            case int(status):
                self._answer(status, {})

    do_GET = do_POST = _handle  # noqa: N815 - http.server calls them so

    def _answer(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": "2", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Log nothing: the requests are stored."""
