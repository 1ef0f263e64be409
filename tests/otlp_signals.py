"""A backend of metrics and logs on loopback: it keeps the decoded requests of both, and of nothing else."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from typing import Any, Self

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from telemetry.testing import Receiver
from tests.processes import ROOT, UNSET, until

KINDS: dict[str, Callable[[], Message]] = {
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Signals:
    """What has arrived; `status` is the answer to every request."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[dict[str, str]] = []
        self.requests: list[Any] = []
        signals = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                kind = KINDS.get(self.path)
                status = signals.status if kind else 404
                if kind and status == 200:
                    request = kind()
                    request.ParseFromString(body)
                    signals.headers.append({key.lower(): value for key, value in self.headers.items()})
                    signals.requests.append(request)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The base address, as in `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def metrics(self) -> dict[str, Metric]:
        """The latest state of each metric."""
        sent = [request for request in list(self.requests) if isinstance(request, ExportMetricsServiceRequest)]
        scopes = [scope for request in sent for each in request.resource_metrics for scope in each.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def resources(self) -> list[dict[str, str]]:
        """The resource of each request, of either kind."""
        parts = [getattr(each, field.name) for each in list(self.requests) for field, _ in each.ListFields()]
        return [
            {attribute.key: attribute.value.string_value for attribute in part.resource.attributes}
            for each in parts
            for part in each
        ]

    def logs(self) -> list[LogRecord]:
        """Every log record."""
        sent = [request for request in list(self.requests) if isinstance(request, ExportLogsServiceRequest)]
        scopes = [scope for request in sent for each in request.resource_logs for scope in each.scope_logs]
        return [record for scope in scopes for record in scope.log_records]

    def wait(self, number: int = 1) -> None:
        """Return once so many requests have been accepted."""
        until(lambda: len(self.requests) >= number)


def run_program(code: str, folder: Path, receiver: Receiver, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose spans go to the receiver, in an interpreter of its own; it ends well."""
    env = {**UNSET, "TELEMETRY_SPOOL_DIR": str(folder), "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **environ}
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done
