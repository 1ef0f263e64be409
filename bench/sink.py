"""A backend that counts what it receives, or hangs; in its own process, so that its work is not measured."""

import gzip
import json
import re
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import ProxyHandler, build_opener

_direct = build_opener(ProxyHandler({}))
# What LangSmith's client sends when a run starts.
_LANGSMITH_RUN = re.compile(rb'name="post\.[0-9a-f-]{36}"')
# As LangSmith's own service answers, so that its client compresses.
_INFO = {"instance_flags": {"zstd_compression_enabled": True}}


@dataclass(frozen=True)
class SinkClient:
    """The client of the sink in a measured process."""

    endpoint: str

    def read_counts(self) -> dict[str, int]:
        """Return the number of bytes, raw and as sent, and of spans since the last call."""
        with _direct.open(f"{self.endpoint}/counts") as response:
            return json.loads(response.read())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: list[tuple[str, str, bytes]] = []  # noqa: RUF012 - of all connections

    def do_POST(self) -> None:
        body = b"".join(self._chunks()) if self._is_chunked() else self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("/hang"):
            threading.Event().wait()
        self.received.append((self.path, self.headers.get("content-encoding", ""), body))
        self._respond(b"" if self.path.endswith("/v1/traces") else b"{}")

    do_PUT = do_PATCH = do_POST  # noqa: N815 - the base class looks for these names

    def do_GET(self) -> None:
        body = self._count() if self.path == "/counts" else _INFO if self.path == "/info" else {}
        self._respond(json.dumps(body).encode())

    def _respond(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _is_chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "")

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _count(self) -> Counter[str]:
        total = Counter(bytes=0, sent=0, spans=0)
        for path, encoding, body in self.received:
            raw = _decompress(body, encoding)
            total.update(bytes=len(raw), sent=len(body), spans=_count_spans(path, raw))
        self.received.clear()
        return total

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Log nothing."""


def _decompress(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case "zstd":
            # Not installed in every tracer's environment, whose processes import this module for its client.
            from zstandard import ZstdDecompressor

            return ZstdDecompressor().decompressobj().decompress(body)
        case _:
            return body


def _count_spans(path: str, body: bytes) -> int:
    if path.endswith("/v1/traces"):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest.FromString(body)
        return sum(len(scope.spans) for of in request.resource_spans for scope in of.scope_spans)
    if path.endswith("/spans/batch"):
        return len(json.loads(body)["spans"])
    return len(set(_LANGSMITH_RUN.findall(body)))


@contextmanager
def sink() -> Iterator[str]:
    """Run the sink and yield its address; paths below `/hang` are never answered."""
    command = [sys.executable, "-m", "bench.sink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        assert process.stdout  # noqa: S101 - it was asked for
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
