"""Show the settings and their origins, whether the backend accepts a trace, and what to do if not."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import distributions
from typing import Literal
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id
from pydantic import SecretStr

from telemetry.backends.langfuse import LangfuseScores, connect, page_template, why_no_sdk
from telemetry.backends.langfuse_media import LangfuseMedia
from telemetry.delivery import spool
from telemetry.delivery.http import OtlpClient, Response
from telemetry.delivery.media import announcement_of
from telemetry.export.media import Attachment, Media
from telemetry.export.stages import build_stages, prepare
from telemetry.provider import build_provider
from telemetry.scores.score import Score
from telemetry.settings import LANGFUSE_TRACES, Settings, variables

Level = Literal["ok", "note", "warning", "error"]

OTLP_TRACES = "/v1/traces"
READ_BACK_S = 15.0
# A spool whose oldest span is so old does not drain.
STALE_S = 120.0

# Other libraries that create or send spans of the same calls, so that each appears twice.
_RIVALS = {
    "opentelemetry-distro": "opentelemetry-distro instruments by itself under `opentelemetry-instrument`",
    "opentelemetry-instrumentation-langchain": "opentelemetry-instrumentation-langchain creates a second span per call",
    "openlit": "openlit instruments LangChain and the model's client as well",
    "traceloop-sdk": "traceloop-sdk instruments LangChain and the model's client as well",
    "logfire": "logfire can instrument the model's client as well",
}
_RIVAL_SWITCHES = {
    "LANGSMITH_OTEL_ENABLED": "LangSmith then sends the same runs over OTLP",
    "LANGSMITH_TRACING": "LangSmith then records the same runs",
    "LANGCHAIN_TRACING_V2": "LangSmith then records the same runs",
    "OTEL_CONFIG_FILE": "it is not read: the variables above configure this pipeline",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    text: str


def examine(settings: Settings, origins: dict[str, str]) -> Iterator[Finding]:
    """Yield findings as they are made; `origins` has the origin of variables that are not from the environment."""
    yield from _resolved(settings, origins)
    yield from _rivals()
    if not settings.active:
        yield Finding("error", "Tracing is off: no spans are created. Set a backend, or switch tracing on.")
    elif settings.exporter == "console":
        yield Finding("ok", "Spans are printed, not sent to a backend.")
        yield from _sampled(settings)
    else:
        yield from _sampled(settings)
        yield from _spooled(settings)
        yield from _sent(settings)


def _resolved(settings: Settings, origins: dict[str, str]) -> Iterator[Finding]:
    for name in Settings.model_fields:
        variable = next((each for each in variables(Settings, name) if os.environ.get(each)), None)
        if variable:
            origin = origins.get(variable, "environment")
            yield Finding("note", f"{variable} = {_shown(getattr(settings, name))} ({origin})")
    yield Finding("note", f"spans go to {settings.endpoint or 'nowhere'}")
    if settings.headers:
        yield Finding("note", f"with the headers {', '.join(sorted(settings.headers))} (values hidden)")


def _shown(value: object) -> str:
    return "(hidden)" if isinstance(value, SecretStr) else str(value)


def _rivals() -> Iterator[Finding]:
    installed = {str(each.metadata["Name"]).lower() for each in distributions()}
    for name in sorted(_RIVALS.keys() & installed):
        yield Finding("warning", f"Double instrumentation: {_RIVALS[name]}. Switch it off, or remove it.")
    for name, what in _RIVAL_SWITCHES.items():
        if os.environ.get(name, "").lower() not in ("", "false", "0"):
            yield Finding("warning", f"{name} is set: {what}.")


def _sampled(settings: Settings) -> Iterator[Finding]:
    if settings.records_nothing:
        names = "OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG" if settings.sampler else "LANGFUSE_SAMPLING_RATE"
        yield Finding("warning", f"No trace that starts here is recorded: the share is 0. Raise it, or unset {names}.")


def _spooled(settings: Settings) -> Iterator[Finding]:
    folder = spool.survey(settings.spool_dir.absolute(), ())
    waiting = folder.waiting
    if not settings.spool:
        yield Finding(
            "warning",
            "TELEMETRY_SPOOL is false: spans that the backend has not accepted are lost when the process ends.",
        )
    elif why := spool.why_unwritable(settings.spool_dir.absolute()):
        yield Finding(
            "error",
            f"{settings.spool_dir} cannot be written ({why}): spans that the backend has not accepted are kept in "
            "memory and lost when the process ends. Set TELEMETRY_SPOOL_DIR to a folder that the service's user can "
            "write.",
        )
    if waiting.oldest_s > STALE_S:
        yield Finding(
            "warning",
            f"The spool does not drain: {waiting.rows} spans wait in {settings.spool_dir}, the oldest for "
            f"{waiting.oldest_s:.0f} s. See `python -m telemetry spool`.",
        )
    if waiting.dead:
        yield Finding("warning", f"{waiting.dead} dead letters: see `python -m telemetry spool`.")


def _sent(settings: Settings) -> Iterator[Finding]:
    trace_id, body = _test_trace(settings)
    answer = OtlpClient(settings).post(body)
    if not answer.accepted:
        yield Finding("error", explain(answer, settings, partial(_elsewhere, settings, body)))
        return
    yield Finding("ok", f"The backend took the test trace {trace_id}.")
    if settings.langfuse_url and settings.endpoint == settings.langfuse_url + LANGFUSE_TRACES:
        why = why_no_sdk()
        if why:
            yield Finding("warning", f"It is not read back: {why}.")
            return
        yield _read_back(settings, trace_id)
        yield _scored(settings, trace_id)
        yield _takes_files(settings, trace_id)
    elif settings.trace_url:
        yield Finding("ok", f"See {settings.trace_url.replace('{trace_id}', trace_id)}")


def _test_trace(settings: Settings) -> tuple[str, bytes]:
    exporter = InMemorySpanExporter()
    provider: TracerProvider = build_provider(
        settings.model_copy(update={"sampler": "always_on"}), "telemetry-doctor", [SimpleSpanProcessor(exporter)]
    )
    with provider.get_tracer("telemetry").start_as_current_span("telemetry doctor"):
        pass
    [span] = exporter.get_finished_spans()
    context = span.get_span_context()
    assert context  # noqa: S101 - a span of the SDK has one
    return format_trace_id(context.trace_id), prepare(span, build_stages(settings))


def explain(answer: Response, settings: Settings, elsewhere: Callable[[], str | None] = lambda: None) -> str:
    """Explain an error and what to do; `elsewhere` looks for a path that would be correct."""
    endpoint = settings.endpoint or ""
    if answer.is_page:
        return (
            f"{endpoint} answers with a web page ({answer.status}), and accepted nothing: it is the page of a login "
            "or a proxy, not an OTLP backend; check the address, and any proxy in front of it."
        )
    match answer.status:
        case None:
            return _silence(answer, endpoint)
        case 401 | 403:
            return (
                f"{endpoint} does not accept these keys ({answer}): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, "
                "or OTEL_EXPORTER_OTLP_HEADERS; the keys must belong to this address."
            )
        case 404 | 405 | 301 | 302 | 307 | 308:
            hint = elsewhere()
            where = f"{hint} would be correct" if hint else f"an OTLP backend accepts traces at …{OTLP_TRACES}"
            return f"Nothing accepts traces at {endpoint} ({answer}): {where}."
        case 413:
            return (
                f"{endpoint} or a proxy in front of it rejects even one small span as too large: raise its limit "
                "(nginx: client_max_body_size)."
            )
        case 400 | 415 | 422:
            return f"{endpoint} does not understand the request ({answer}): is it an OTLP/HTTP endpoint?"
        case 429:
            return f"{endpoint} limits the rate ({answer}): spans wait and are sent later."
        case _:
            return f"{endpoint} is broken at the moment ({answer}): spans wait on disk until it works again."


def _silence(answer: Response, endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.port == 4317 or "BadStatusLine" in answer.text or "HTTP/2" in answer.text:
        other = parts._replace(netloc=f"{parts.hostname}:4318").geturl()
        return f"{endpoint} looks like a gRPC port ({answer}): this exporter needs HTTP, usually at {other}."
    if "TLS" in answer.text:
        return (
            f"TLS to {endpoint} failed ({answer}): set OTEL_EXPORTER_OTLP_CERTIFICATE to the authority's file, "
            "or write http:// if the backend does not use TLS."
        )
    return f"Nothing answers at {endpoint} ({answer}): check the address, and that the backend runs."


def _elsewhere(settings: Settings, body: bytes) -> str | None:
    """Try the two usual paths of the same host."""
    parts = urlsplit(settings.endpoint or "")
    for path in (OTLP_TRACES, LANGFUSE_TRACES, parts.path.rstrip("/") + OTLP_TRACES):
        url = parts._replace(path=path).geturl()
        answer = OtlpClient(settings, url).post(body)
        if answer.accepted or answer.status in (401, 403):
            return url
    return None


def _read_back(settings: Settings, trace_id: str) -> Finding:
    deadline = time.monotonic() + READ_BACK_S
    with connect(settings) as client:
        while time.monotonic() < deadline:
            try:
                if client.observations.get_many(trace_id=trace_id).data:
                    link = settings.trace_url or page_template(client, settings) or ""
                    return Finding("ok", f"It can be read back: {link.replace('{trace_id}', trace_id)}")
            except Exception as error:  # noqa: BLE001 - an older server has no such route
                return Finding("warning", f"It could not be read back: {type(error).__name__}.")
            time.sleep(0.5)
    return Finding("warning", f"It cannot be read back after {READ_BACK_S:.0f} s: the backend may be slow.")


def _scored(settings: Settings, trace_id: str) -> Finding:
    """Create a score for the test trace, look for it, and delete it."""
    scores = LangfuseScores(settings, settings.environment)
    score = Score(name="telemetry doctor", value=1.0, trace_id=trace_id)
    try:
        created = scores.send(score)
        if not created.accepted:
            return Finding("error", f"It does not accept scores: {created}.")
        deadline = time.monotonic() + READ_BACK_S
        while (found := scores.read(score)).status == 404 and time.monotonic() < deadline:
            time.sleep(0.5)
        deleted = scores.delete(score)
    finally:
        scores.close()
    how = "in lists" if scores.takes_lists else "one at a time, as before version 4.59"
    if not found.accepted:
        return Finding("warning", f"It accepts scores, {how}, but the test score cannot be read back ({found}).")
    if not deleted.accepted:
        return Finding("warning", f"It accepts scores, {how}, but does not delete the test score ({deleted}).")
    return Finding("ok", f"It accepts scores, {how}; the test score is read back and deleted (within minutes).")


def _takes_files(settings: Settings, trace_id: str) -> Finding:
    """Announce the smallest possible file for the test trace, and upload it unless it is there."""
    if not settings.sends_media:
        return Finding("note", "Files in spans are not sent: there are notes of their type, size and hash instead.")
    content = b"telemetry doctor"
    media = Media("text/plain", content, sha256(content).digest(), "bytes")
    answer = LangfuseMedia(settings).send(announcement_of(Attachment(trace_id, None, "metadata", media)), content)
    if answer.accepted:
        return Finding("ok", "It accepts files.")
    return Finding("warning", f"It does not accept files ({answer}): they wait in the spool. See TELEMETRY_MEDIA.")
