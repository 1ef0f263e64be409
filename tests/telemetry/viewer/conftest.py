"""A real viewer on a real socket, and what sends to it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from langfuse import Langfuse
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer, format_span_id, format_trace_id
from playwright.sync_api import Browser, Page, expect

from telemetry.viewer.app import create_app
from telemetry.viewer.settings import ViewerSettings
from tests.processes import serve

TRACES = "/api/public/otel/v1/traces"

expect.set_options(timeout=60_000)


@dataclass(frozen=True)
class Viewer:
    """A running viewer: its address, and a client that has the keys."""

    url: str
    client: httpx.Client
    keys: tuple[str, str]

    def send(self, spans: Sequence[ReadableSpan]) -> str:
        """Post the spans as the exporter encodes them; return the trace id of the last one."""
        response = self.client.post(
            TRACES,
            content=encode_spans(spans).SerializeToString(),
            headers={"content-type": "application/x-protobuf"},
        )
        assert response.status_code == 200, response.text
        return _ids(spans[-1])[0]

    def page(self, trace_id: str, **query: str) -> str:
        """Return the address of a trace's page."""
        return str(httpx.URL(f"{self.url}/project/local/traces/{trace_id}", params=query))

    def session(self, session_id: str) -> str:
        """Return the address of a session's page."""
        return str(httpx.URL(f"{self.url}/project/local/session", params={"id": session_id}))

    def traces(self, **filters: str) -> str:
        """Return the address of the list of traces that these filters want."""
        return str(httpx.URL(f"{self.url}/project/local/traces", params=filters))


@contextmanager
def running(settings: ViewerSettings) -> Iterator[Viewer]:
    """A viewer with these settings, for the length of the block."""
    keys = (settings.public_key, settings.secret_key.get_secret_value())
    with (
        serve(create_app(settings)) as url,
        httpx.Client(base_url=url, auth=keys, trust_env=False, timeout=60) as client,
    ):
        yield Viewer(url, client, keys)


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    # The SDK keeps one client a public key for the whole process: each test has its own.
    with running(ViewerSettings(db=tmp_path / "viewer.db", public_key=f"pk-lf-{token_hex(4)}")) as viewer:
        yield viewer


@dataclass(frozen=True)
class Recorder:
    """A tracer whose finished spans are at hand."""

    tracer: Tracer
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order of their ends."""
        return list(self.exporter.get_finished_spans())

    @property
    def ids(self) -> list[tuple[str, str]]:
        """Trace and span id of each of them, in hex."""
        return [_ids(span) for span in self.spans]


def _ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    exporter = InMemorySpanExporter()
    resource = Resource({"service.name": "agent", "deployment.environment.name": "test"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Recorder(provider.get_tracer("tests"), exporter)
    provider.shutdown()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A tab of a desk's size."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        yield context.new_page()


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    """A tab of a phone's size."""
    with chromium.new_context(viewport={"width": 390, "height": 844}) as context:
        yield context.new_page()


@pytest.fixture
def langfuse(viewer: Viewer) -> Iterator[Langfuse]:
    """The SDK as it is used for scores alone; nothing but the address is different from a Langfuse server."""
    client = Langfuse(
        public_key=viewer.keys[0],
        secret_key=viewer.keys[1],
        base_url=viewer.url,
        timeout=60,
        tracer_provider=TracerProvider(sampler=ALWAYS_ON),
        should_export_span=lambda _: False,
    )
    yield client
    client.shutdown()
