"""What a connection has served before is no part of its next request."""

import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry.sdk.trace import ReadableSpan

import telemetry
from telemetry.testing import Recorded
from tests.processes import serve

# More than a server takes from its socket before somebody reads it.
LARGE = b"a" * 5_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def make_app() -> FastAPI:
    app = FastAPI()

    @app.post("/upload")
    async def upload(request: Request) -> int:
        with telemetry.scope(session_id="t-ada", user_id="ada"), telemetry.span("upload"):
            return len(await request.body())

    @app.get("/next")
    async def next_one() -> None:
        telemetry.event("happened")

    telemetry.instrument(app)
    return app


@pytest.mark.parametrize("sampled", ["00", "01"])
def test_a_large_body_leaves_nothing_on_its_connection(spans: Recorded, sampled: str) -> None:
    """The request behind an upload, on the same connection, has its own trace and nobody's session, sampled or not."""
    caller = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-{sampled}"}
    with serve(make_app()) as url, telemetry.untraced(), httpx.Client(base_url=url, timeout=60) as client:
        assert client.post("/upload", content=LARGE, headers=caller).json() == len(LARGE)
        for _ in range(2):
            assert client.get("/next").is_success

    behind = [span for span in spans.settled() if span.name in ("GET /next", "happened")]
    assert len(behind) == 4
    assert len({_trace(span) for span in behind} - {int(TRACE, 16)}) == 2
    assert spans.tree().count("GET /next") == 2
    assert not [name for span in behind for name in span.attributes or {} if name in ("session.id", "user.id")]


@pytest.mark.anyio
async def test_a_request_within_its_caller_stays_there(spans: Recorded) -> None:
    """A request that its caller's own task serves belongs to the caller's trace."""
    here = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=here, base_url="http://here") as client:
        with telemetry.span("caller"):
            assert (await client.get("/next")).is_success

    assert len({_trace(span) for span in spans.settled()}) == 1


def _trace(span: ReadableSpan) -> int:
    assert span.context
    return span.context.trace_id
