"""Get links to traces from Langfuse, and send scores to it; the only file that imports its SDK."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from opentelemetry.instrumentation.utils import suppress_instrumentation

from telemetry import pipeline
from telemetry.delivery.http import Response, is_html, parse_retry_after
from telemetry.scores.score import Score
from telemetry.settings import Settings

if TYPE_CHECKING:
    from langfuse.api import CreateScoreRequest, LangfuseAPI
    from langfuse.api.core import ApiError, RequestOptions

logger = logging.getLogger(__name__)

ASK_EVERY_S = 15.0
# Most pages of scores to read for one trace; a server that supports the filter by id returns one.
MAX_PAGES = 20
# Imported before the threads of links and scores start: if a thread and the program import the same modules at once,
# one of them may see a module that is only partly initialised.
_NEEDED = ("langfuse", "langfuse.api.projects.client", "langfuse.api.scores.client", "httpcore")
# The major release of the SDK whose API is used here, and the extra that installs it.
_MAJOR = "5"
_EXTRA = "agent-telemetry[langfuse]"
# The project of the local viewer, which has the same API as Langfuse.
_VIEWER = "/project/local/"


def why_no_sdk() -> str | None:
    """Return a sentence that says why the SDK cannot be used here, None if it can."""
    try:
        installed = version("langfuse")
    except PackageNotFoundError:
        found = "it is not installed"
    else:
        if installed.split(".")[0] == _MAJOR:
            return None
        found = f"version {installed} is installed"
    return f"scores and links need version {_MAJOR} of the langfuse package, and {found}: install {_EXTRA}"


class NoPromptError(LookupError):
    """Langfuse has no text prompt of this name and label."""


def fetch_prompt(settings: Settings, name: str, label: str) -> tuple[str, int]:
    """Return the text and the version of a prompt; raise `NoPromptError`, or what the SDK raises."""
    from langfuse.api import NotFoundError, Prompt_Text

    options: RequestOptions = {"timeout_in_seconds": max(1, round(settings.timeout)), "max_retries": 0}
    with connect(settings) as api:
        try:
            found = api.prompts.get(quote(name, safe=""), label=label, request_options=options)
        except NotFoundError as error:
            raise NoPromptError(name) from error
    if not isinstance(found, Prompt_Text):
        raise NoPromptError(f"{name} is a chat prompt")
    return found.prompt, found.version


def push_prompt(settings: Settings, name: str, label: str, text: str) -> int:
    """Store a text as the next version of a prompt, with this label; return the version."""
    from langfuse.api import CreateTextPromptRequest, CreateTextPromptType

    with connect(settings) as api:
        kind = CreateTextPromptType.TEXT
        request = CreateTextPromptRequest(name=name, prompt=text, labels=[label], type=kind)
        return api.prompts.create(request=request).version


class Links:
    """The address of a trace's page, known once the backend has returned its project."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._template = settings.trace_url
        self._can_ask = bool(settings.langfuse_url) and why_no_sdk() is None
        self._asked = float("-inf")
        self._lock = threading.Lock()

    def url(self, trace_id: str) -> str | None:
        """Return the page's address without waiting; None until it is known."""
        if self._template is None:
            self.ask()
        return self._template.replace("{trace_id}", trace_id) if self._template else None

    @property
    def backend(self) -> str | None:
        """`Langfuse` if the page is known to be one of Langfuse's own, otherwise None."""
        is_langfuse = self._template and self._settings.langfuse_url and _VIEWER not in self._template
        return "Langfuse" if is_langfuse else None

    def ask(self) -> None:
        """Request the project in a separate thread, at most every `ASK_EVERY_S` seconds."""
        with self._lock:
            if self._template or not self._can_ask or time.monotonic() - self._asked < ASK_EVERY_S:
                return
            self._asked = time.monotonic()
        threading.Thread(target=self._learn, name="telemetry-links", daemon=True).start()

    def _learn(self) -> None:
        with suppress_instrumentation():
            try:
                with connect(self._settings) as api:
                    self._template = page_template(api, self._settings)
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises, there is only no link yet
                logger.info("the backend's project is not known yet: %s", error)


def learn_links(settings: Settings) -> None:
    """Start to look up the address of the trace pages."""
    if settings.langfuse_url and (why := why_no_sdk()):
        logger.warning(why)
    elif settings.langfuse_url:
        for name in _NEEDED:
            import_module(name)
    pipeline.put(Links(settings)).ask()


def trace_url(trace_id: str) -> str | None:
    """Return the page of a trace; None until its address is known.

    Args:
        trace_id: 32 lower-case hexadecimal digits.

    Example:
        >>> import telemetry
        >>> telemetry.trace_url("0af7651916cd43dd8448eb211c80319c") is None
        True
    """
    links = pipeline.get(Links)
    return links.url(trace_id) if links else None


def backend() -> str | None:
    """Return `Langfuse` if Langfuse shows the traces; None until that is known, and for other backends.

    Example:
        >>> import telemetry
        >>> telemetry.backend() or "another backend"
        'another backend'
    """
    links = pipeline.get(Links)
    return links.backend if links else None


class LangfuseScores:
    """Sends scores one at a time, because the SDK's own queue does not report lost scores.

    `takes_lists` tells whether the server expects them in a list, which is known after the first one.
    """

    def __init__(self, settings: Settings, environment: str | None) -> None:
        self._settings = settings
        self._environment = environment or "default"
        self.takes_lists = True
        self._open = ExitStack()

    @cached_property
    def _api(self) -> "LangfuseAPI":
        return self._open.enter_context(connect(self._settings))

    def close(self) -> None:
        """Close the connections."""
        self._open.close()

    def send(self, score: Score) -> Response:
        """Create the score, or replace the one with its id; never raise."""
        return self._answer(lambda: self._create(score))

    def delete(self, score: Score) -> Response:
        """Delete the score with this id, which Langfuse does asynchronously; never raise."""

        def delete() -> Response:
            self._api.scores.delete(score.score_id, request_options=self._options())
            return Response(200)

        return self._answer(delete)

    def read(self, score: Score) -> Response:
        """Look for the score with this id: 200 if it is there, 404 if not, 501 from a server that cannot tell."""
        response = self._answer(lambda: self._find(score))
        cannot = response.status in (400, 405) or (response.status == 404 and response.text)
        return Response(501, response.text) if cannot else response

    def _answer(self, ask: Callable[[], Response]) -> Response:
        from langfuse.api.core import ApiError

        try:
            return ask()
        except ApiError as error:
            return _response(error)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the score stays where it is
            return Response(None, f"{type(error).__name__}: {error}")

    def _find(self, score: Score) -> Response:
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = self._api.scores.get_many(
                trace_id=score.trace_id,
                id=score.score_id,
                cursor=cursor,
                limit=100,
                request_options=self._options(),
            )
            if any(found.id == score.score_id for found in page.data):
                return Response(200)
            cursor = page.meta.cursor
            if not cursor:
                return Response(404)
        return Response(501, "the trace has too many scores to look through")

    def _create(self, score: Score) -> Response:
        from langfuse.api.core import ApiError

        request = self._request(score)
        try:
            return self._send([request] if self.takes_lists else request)
        except ApiError as error:
            if error.status_code == 404:
                return Response(None, "404: there is no Langfuse at this address")
            if error.status_code != 400 or not self.takes_lists or "received array" not in str(error.body):
                raise
        # Servers before 4.59 take one score, no list.
        answer = self._send(request)
        self.takes_lists = False
        return answer

    def _send(self, request: Any) -> Response:
        created = self._api.scores.create(request=request, request_options=self._options())
        errors = getattr(created, "errors", None) or ()
        return Response(422, "; ".join(error.message for error in errors)) if errors else Response(200)

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

    def _options(self) -> "RequestOptions":
        return {"timeout_in_seconds": max(1, round(self._settings.timeout)), "max_retries": 0}


def _response(error: "ApiError") -> Response:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code and 200 <= error.status_code < 300:
        if is_html(headers.get("content-type")):
            return Response(error.status_code, "with a web page", is_page=True)
        return Response(error.status_code)  # accepted, in a form that this SDK does not know
    text = " ".join(str(error.body).split())[:300]
    return Response(error.status_code, text, parse_retry_after(headers.get("retry-after")))


@contextmanager
def connect(settings: Settings) -> "Iterator[LangfuseAPI]":
    """Yield a client of the API, without a tracer.

    The SDK's `Langfuse` class is shared by the whole process: the first one that is created would decide where all
    spans are sent, including the program's own.
    """
    from langfuse.api import LangfuseAPI

    from telemetry.backends.http_client import build_client

    assert settings.secret_key  # noqa: S101 - callers ask only where there is a langfuse_url
    with build_client(settings) as client:
        yield LangfuseAPI(
            base_url=settings.langfuse_url or "",
            username=settings.public_key,
            password=settings.secret_key.get_secret_value(),
            httpx_client=client,
            timeout=settings.timeout,
        )


def page_template(client: "LangfuseAPI", settings: Settings) -> str | None:
    """Return the address of a trace's page as a template with {trace_id}; None if the keys have no project."""
    projects = client.projects.get().data
    return f"{settings.langfuse_url}/project/{projects[0].id}/traces/{{trace_id}}" if projects else None
