"""The built collector as a process of a test, and spans to send through it."""

import contextlib
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from telemetry.export import otlp
from tests import processes

FOLDER = processes.ROOT / "otel-collector"
BINARY = FOLDER / "dist" / "otelcol"
CONFIGS: dict[str, Sequence[str]] = {
    "stateless": ("shared", "stateless"),
    "durable": ("shared", "durable"),
    "tail": ("shared", "durable", "tail"),
}
HEADERS = {"content-type": "application/x-protobuf"}


@dataclass
class Collector:
    """One collector on ports of its own; it can be killed and started again where it was."""

    config: str
    backend: str
    state: Path
    env: Mapping[str, str] = field(default_factory=dict)
    overlay: str = ""
    layers: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.port, self.health, self.metrics, self.zpages = (processes.free_port() for _ in range(4))
        self._stack = contextlib.ExitStack()

    @property
    def endpoint(self) -> str:
        """The base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` takes it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> processes.Process:
        """The process that runs now."""
        return self._process

    def start(self) -> None:
        """Run it; returns once it takes spans."""
        env = {
            "COLLECTOR_ENDPOINT": self.backend,
            "COLLECTOR_PORT": str(self.port),
            "COLLECTOR_HEALTH_PORT": str(self.health),
            "COLLECTOR_METRICS_PORT": str(self.metrics),
            "COLLECTOR_ZPAGES_PORT": str(self.zpages),
            "COLLECTOR_STATE": str(self.state),
            **self.env,
        }
        running = processes.start([str(BINARY), *self._arguments()], env, f"http://127.0.0.1:{self.health}")
        self._process = self._stack.enter_context(running)

    def kill(self) -> None:
        """SIGKILL, and no word of farewell."""
        self._process.popen.kill()
        self._process.popen.wait()

    def send(self, *spans: otlp.Span, client: httpx.Client | None = None) -> int:
        """Return the status that these spans, as one request, are answered with."""
        body = b"".join(map(otlp.encode, map(otlp.RedactedSpan.of, spans)))
        post = client.post if client else httpx.post
        return post(f"{self.endpoint}/v1/traces", content=body, headers=HEADERS, timeout=30).status_code

    def metric(self, name: str) -> float:
        """The sum of one of its own metrics, 0 where it has not been counted yet."""
        lines = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def __enter__(self) -> "Collector":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _arguments(self) -> list[str]:
        added = [f"--config={FOLDER / 'config' / name}.yaml" for name in self.layers]
        return config_arguments(self.config) + added + ([f"--config=yaml:{self.overlay}"] if self.overlay else [])


def config_arguments(config: str) -> list[str]:
    """The command line of one of the configurations."""
    return [f"--config={FOLDER / 'config' / name}.yaml" for name in CONFIGS[config]]


def validate(config: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What `otelcol validate` says of a configuration."""
    argv = [str(BINARY), "validate", *config_arguments(config)]
    return subprocess.run(argv, env=dict(env), capture_output=True, text=True, timeout=30, check=False)


def span(name: str = "work", trace_id: str | None = None, status: str = "UNSET", **attributes: Any) -> otlp.Span:
    """A finished span of the agent service."""
    return otlp.Span(
        trace_id=trace_id or secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        parent_id=None,
        name=name,
        kind="INTERNAL",
        start=1_700_000_000_000_000_000,
        end=1_700_000_000_500_000_000,
        attributes=attributes,
        status=status,
        resource={"service.name": "agent-api"},
    )
