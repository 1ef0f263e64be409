"""The only place that knows the Langfuse SDK: where a trace is shown, and how a score gets there."""

import logging
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from telemetry.delivery.post import Answer, is_html, retry_after
from telemetry.scores.score import Score
from telemetry.settings import Settings

if TYPE_CHECKING:
    from langfuse import Langfuse
    from langfuse.api import CreateScoreRequest
    from langfuse.api.core import ApiError, RequestOptions

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 15.0
# What the threads of links and scores would import, beside a program that imports the same: half of a module is seen
# where two threads do so at once.
_NEEDED = ("langfuse", "langfuse.api.projects.client", "langfuse.api.scores.client", "httpcore")
_NO_TRACE = "0" * 32
# The one project of the local viewer, which speaks as Langfuse does.
_VIEWER = "/project/local/"


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

    @property
    def backend(self) -> str | None:
        """Langfuse, where it is known that the page is one of Langfuse's own."""
        known = self._template and self._settings.langfuse_url and _VIEWER not in self._template
        return "Langfuse" if known else None

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
    if settings.langfuse_url:
        for name in _NEEDED:
            import_module(name)
    _links = Links(settings)
    _links.ask()


def trace_url(trace_id: str) -> str | None:
    """Return the page that shows this trace, None until it is known."""
    return _links.url(trace_id) if _links else None


def backend() -> str | None:
    """Return the name of who shows the traces, None until it is known, or for one that has none."""
    return _links.backend if _links else None


class Scores:
    """Delivers scores, one at a time: the SDK's own queue tells nobody what it loses."""

    def __init__(self, settings: Settings, environment: str | None) -> None:
        self._settings = settings
        self._environment = environment or "default"
        self._lists = True

    def __call__(self, score: Score) -> Answer:
        """Return what Langfuse says to it; never raises. 404 means that it does not know a score to take back."""
        from langfuse.api.core import ApiError

        try:
            return self._remove(score) if score.value is None else self._create(score)
        except ApiError as error:
            return _answer(error)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the score stays where it is
            return Answer(None, f"{type(error).__name__}: {error}")

    def _remove(self, score: Score) -> Answer:
        self._client().api.scores.delete(score.score_id, request_options=self._options())
        return Answer(200)

    def _create(self, score: Score) -> Answer:
        from langfuse.api.core import ApiError

        request = self._request(score)
        try:
            return self._send([request] if self._lists else request)
        except ApiError as error:
            if error.status_code == 404:
                return Answer(None, "404: there is no Langfuse at this address")
            if error.status_code != 400 or not self._lists or "received array" not in str(error.body):
                raise
        # Servers before 4.59 take one score, no list.
        answer = self._send(request)
        self._lists = False
        return answer

    def _send(self, request: Any) -> Answer:
        given = self._client().api.scores.create(request=request, request_options=self._options())
        complaints = getattr(given, "errors", None) or ()
        return Answer(422, "; ".join(error.message for error in complaints)) if complaints else Answer(200)

    def _request(self, score: Score) -> "CreateScoreRequest":
        from langfuse.api import CreateScoreRequest, ScoreDataType

        value = float(score.value) if isinstance(score.value, bool) else score.value
        return CreateScoreRequest(
            id=score.score_id,
            trace_id=score.trace_id,
            observation_id=score.observation_id,
            name=score.name,
            value=value,  # pyright: ignore[reportArgumentType] - what has no value is taken back
            data_type=ScoreDataType(score.data_type),
            comment=score.comment,
            metadata=score.metadata or None,
            environment=self._environment,
            timestamp=score.at,
        )

    def _client(self) -> "Langfuse":
        return make_client(self._settings)

    def _options(self) -> "RequestOptions":
        return {"timeout_in_seconds": max(1, round(self._settings.timeout)), "max_retries": 0}


def _answer(error: "ApiError") -> Answer:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code and 200 <= error.status_code < 300:
        if is_html(headers.get("content-type")):
            return Answer(error.status_code, "with a web page", is_page=True)
        return Answer(error.status_code)  # accepted, in words that this SDK does not know
    text = " ".join(str(error.body).split())[:300]
    return Answer(error.status_code, text, retry_after(headers.get("retry-after")))


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
