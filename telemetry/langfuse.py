"""The only place that knows the Langfuse SDK: which project the keys belong to, and so where a trace is shown."""

import logging
import threading
import time
from typing import TYPE_CHECKING

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from telemetry.settings import Settings

if TYPE_CHECKING:
    from langfuse import Langfuse

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 15.0
_NO_TRACE = "0" * 32


class Links:
    """Knows the page of a trace, once the backend has told which project it belongs to."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._template = settings.trace_url
        self._asked = float("-inf")
        self._lock = threading.Lock()

    def url(self, trace_id: str) -> str | None:
        """Return the page's address; None until it is known, and never wait for it."""
        if self._template is None:
            self.ask()
        return self._template.replace("{trace_id}", trace_id) if self._template else None

    def ask(self) -> None:
        """Ask for the project in a thread of its own, not more often than every few seconds."""
        with self._lock:
            if self._template or not self._settings.langfuse_url or time.monotonic() - self._asked < RETRY_AFTER_S:
                return
            self._asked = time.monotonic()
        threading.Thread(target=self._learn, name="telemetry-links", daemon=True).start()

    def _learn(self) -> None:
        with suppress_instrumentation():
            try:
                page = make_client(self._settings).get_trace_url(trace_id=_NO_TRACE)
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises, there is only no link yet
                logger.info("the backend has not told its project yet: %s", error)
                return
        self._template = page.replace(_NO_TRACE, "{trace_id}") if page else None


_links: Links | None = None


def learn_links(settings: Settings) -> None:
    """Begin to learn where traces are shown."""
    global _links
    _links = Links(settings)
    _links.ask()


def trace_url(trace_id: str) -> str | None:
    """Return the page that shows this trace, None until it is known."""
    return _links.url(trace_id) if _links else None


def make_client(settings: Settings) -> "Langfuse":
    """Return a client that scores and reads, and never exports a span.

    By default it would put itself into the global provider, and every span would reach Langfuse twice.
    """
    from langfuse import Langfuse

    assert settings.secret_key  # noqa: S101 - callers ask only where there is a langfuse_url
    return Langfuse(
        public_key=settings.public_key,
        secret_key=settings.secret_key.get_secret_value(),
        base_url=settings.langfuse_url,
        environment=settings.environment,
        tracer_provider=TracerProvider(sampler=ALWAYS_ON),
        should_export_span=lambda _: False,
    )
