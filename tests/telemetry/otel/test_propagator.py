"""Trace headers: to whom they go, from whom they count, and how the standard reads them."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context

import telemetry
from telemetry.otel.propagator import TrustedPropagator
from telemetry.testing import Recorded
from tests.processes import serve

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def echo() -> Iterator[str]:
    app = FastAPI()

    @app.get("/")
    async def headers(request: Request) -> dict[str, str]:
        return dict(request.headers)

    @app.get("/to")
    async def to(url: str) -> RedirectResponse:
        return RedirectResponse(url)

    with serve(app) as url:
        yield url


def trace_headers(response: httpx.Response) -> set[str]:
    return {"traceparent", "tracestate", "baggage"} & response.json().keys()


@pytest.mark.usefixtures("spans")
def test_only_trusted_hosts_get_the_trace(echo: str) -> None:
    """A host on the list gets traceparent, any other nothing; baggage goes to nobody."""
    stranger = echo.replace("127.0.0.1", "localhost")
    telemetry.trust(echo)
    token = context.attach(baggage.set_baggage("user.id", "ada"))
    try:
        with telemetry.span("outside"):
            assert trace_headers(httpx.get(echo)) == {"traceparent"}
            assert trace_headers(httpx.get(stranger)) == set()
    finally:
        context.detach(token)


@pytest.mark.usefixtures("spans")
async def test_async_calls_are_judged_too(echo: str) -> None:
    """An async client sends the trace to a trusted host only."""
    telemetry.trust(echo)
    async with httpx.AsyncClient() as http:
        with telemetry.span("outside"):
            assert trace_headers(await http.get(echo)) == {"traceparent"}
            assert trace_headers(await http.get(echo.replace("127.0.0.1", "localhost"))) == set()


@pytest.mark.usefixtures("spans")
def test_a_redirect_does_not_take_the_trace_along(echo: str) -> None:
    """A trusted host that redirects elsewhere does not make the other host trusted."""
    stranger = echo.replace("127.0.0.1", "localhost")
    telemetry.trust(echo)
    with telemetry.span("outside"):
        response = httpx.get(f"{echo}/to", params={"url": stranger}, follow_redirects=True)

    assert response.url.host == "localhost"
    assert trace_headers(response) == set()


def test_untraced_calls_make_no_span_and_no_header(echo: str, spans: Recorded) -> None:
    """Inside `untraced` a trusted host gets nothing either."""
    telemetry.trust(echo)
    with telemetry.span("outside"), telemetry.suppress_instrumentation():
        assert trace_headers(httpx.get(echo)) == set()

    assert spans.tree() == "outside"


def extracted(*headers: tuple[str, str]) -> trace.SpanContext:
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        carrier.setdefault(name.lower(), []).append(value)
    return trace.get_current_span(TrustedPropagator().extract(carrier, Context())).get_span_context()


def state(*values: str) -> str:
    return extracted(("traceparent", PARENT), *(("tracestate", value) for value in values)).trace_state.to_header()


@pytest.mark.parametrize(
    "header",
    [
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        PARENT,
        f"  {PARENT}  ",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-02",
        f"00-{TRACE}-{SPAN}-ff",
    ],
)
def test_traceparent_that_continues(header: str) -> None:
    """A well-formed traceparent, of this version or a later one, is continued with its flags."""
    found = extracted(("traceparent", header))

    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE, SPAN)
    assert found.trace_flags == int(header.strip().split("-")[3], 16)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}-01.",
        f".0-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}.-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}-001",
    ],
)
def test_traceparent_that_does_not(header: str) -> None:
    """A malformed traceparent begins a new trace, and its tracestate is not taken over."""
    assert not extracted(("traceparent", header), ("tracestate", "foo=1")).is_valid


def test_two_traceparents_say_nothing() -> None:
    """Of two traceparent headers neither is believed."""
    assert not extracted(("traceparent", PARENT), ("traceparent", PARENT.replace("0af7", "0af8"))).is_valid


def test_header_names_in_any_case() -> None:
    """Header names are read in any case."""
    assert extracted(("TraceParent", PARENT)).is_valid


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (("foo=1",), "foo=1"),
        (("foo=1,bar=2",), "foo=1,bar=2"),
        (("foo=1", "bar=2"), "foo=1,bar=2"),
        (("foo=1 \t , \t bar=2, \t baz=3",), "foo=1,bar=2,baz=3"),
        (("foo=1,",), "foo=1"),
        (("foo=1,,,bar=2",), "foo=1,bar=2"),
        (("foo=1,foo=1",), "foo=1"),
        (("foo=1,foo=2",), "foo=1"),
        (("foo=1", "foo=2"), "foo=1"),
        (("foo@=1,bar=2",), "foo@=1,bar=2"),
        (("foo@bar@baz=1",), "foo@bar@baz=1"),
        (("1a-2f@foo=bar1",), "1a-2f@foo=bar1"),
        (("t" * 241 + "@v=1",), "t" * 241 + "@v=1"),
        (("z" * 256 + "=1",), "z" * 256 + "=1"),
        (("foo=a b",), "foo=a b"),
        (("foo=" + "v" * 256,), "foo=" + "v" * 256),
        (("foo 1",), ""),
        (("foo =1",), ""),
        (("FOO=1",), ""),
        (("foo.bar=1",), ""),
        (("foo=bar=baz",), ""),
        (("foo=,bar=3",), ""),
        (("z" * 257 + "=1",), ""),
        (("foo=" + "v" * 257,), ""),
        ((",".join(f"bar{n}=0" for n in range(32)),), ",".join(f"bar{n}=0" for n in range(32))),
        ((",".join(f"bar{n}=0" for n in range(33)),), ""),
        (("",), ""),
    ],
)
def test_tracestate(values: tuple[str, ...], kept: str) -> None:
    """Tracestate is kept whole, save duplicates; malformed or too long, it is left out alone."""
    assert state(*values) == kept


def test_an_unknown_caller_is_linked_not_continued(spans: Recorded) -> None:
    """Where the caller may not continue a trace, a new one begins that is linked to it."""
    propagator = TrustedPropagator()
    propagator.trust_caller = lambda header: header == "Bearer known"
    outside = propagator.extract({"traceparent": PARENT, "authorization": "Bearer x"}, Context())
    token = context.attach(outside)
    try:
        with telemetry.span("root"), telemetry.span("child"):
            pass
    finally:
        context.detach(token)

    child, root = spans.settled()
    assert root.parent is None
    assert [f"{link.context.trace_id:032x}" for link in root.links] == [TRACE]
    assert child.links == ()
