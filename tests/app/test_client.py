"""The client against a real socket: what it reads from the wire, what it raises, what it sends."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from app.client import AgentClient, AgentError, EventReader, Failed, Refused, Unreachable
from app.schema import EndEvent, ErrorEvent, RunEvent, StreamEvent, TokenEvent
from tests.processes import free_port, serve

TRACE = "0af7651916cd43dd8448eb211c80319c"
RUN = {"type": "run", "run_id": "r-1", "trace_id": TRACE, "thread_id": "t-1", "sampled": True}
END = {"type": "end", "status": "completed"}
DONE = "data: [DONE]\n\n"
# Line separators to Python and to httpx, ordinary characters to an event stream.
SEPARATORS = "one\u2028two\u2029three\x85four\x0bfive\x0csix"


def line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def token(text: str) -> dict[str, Any]:
    return {"type": "token", "content": text}


WIRES = {
    "plain": line(RUN) + line(token("Hello")) + line(END) + DONE,
    "comments": ": still here\n\n" + line(RUN) + ":\n\n" + line(token("Hello")) + line(END) + DONE,
    "unknown": line(RUN) + line({"type": "weather", "sun": 1}) + line(token("Hello")) + line(END) + DONE,
    "windows": (line(RUN) + line(token("Hello")) + line(END) + DONE).replace("\n", "\r\n"),
    "separators": line(RUN) + line(token(SEPARATORS)) + line(END) + DONE,
    "error": line(RUN) + line({"type": "error", "error": "ToolError", "message": "No luck"}) + line(END) + DONE,
    "cut": line(RUN) + line(token("Hel")),
    "cut_line": line(RUN) + line(token("Hel"))[:-9],
    "foreign": line(RUN) + "data: <html>\n\n" + DONE,
}


def wire_server() -> FastAPI:
    app = FastAPI()
    app.state.seen = []

    @app.post("/{wire}/stream")
    async def stream(wire: str, request: Request) -> Response:
        if wire not in WIRES | {"broken": ""}:
            return PlainTextResponse("a proxy's own page", status_code=int(wire))
        app.state.seen.append((dict(request.headers), await request.json()))
        return StreamingResponse(pieces(wire), media_type="text/event-stream")

    async def pieces(wire: str) -> AsyncIterator[bytes]:
        data = WIRES["plain" if wire == "broken" else wire].encode()
        for start in range(0, len(data), 7):
            yield data[start : start + 7]
            if wire == "broken" and start > 150:
                raise ConnectionAbortedError

    @app.post("/{wire}/invoke")
    async def invoke(wire: str) -> JSONResponse:
        if wire == "html":
            return JSONResponse("not a message")
        return JSONResponse({"detail": "Ask for one of: demo.", "trace_id": TRACE}, status_code=int(wire))

    return app


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FastAPI, str]]:
    app = wire_server()
    with serve(app) as address:
        yield app, address


@pytest.fixture
def client(server: tuple[FastAPI, str]) -> Callable[..., AgentClient]:
    return lambda agent, **settings: AgentClient(server[1], agent=agent, timeout=10, **settings)


async def collected(client: AgentClient, way: str) -> list[StreamEvent]:
    if way == "sync":
        return list(client.stream("hi"))
    return [event async for event in client.astream("hi")]


both_ways = pytest.mark.parametrize("way", ["sync", "async"])


@both_ways
@pytest.mark.parametrize("wire", ["plain", "comments", "unknown", "windows"])
async def test_reads_the_events(client: Callable[..., AgentClient], way: str, wire: str) -> None:
    """Comments, unknown types and line endings change nothing in what arrives, however the bytes are cut."""
    run, text, end = await collected(client(wire), way)
    assert isinstance(run, RunEvent)
    assert text == TokenEvent(content="Hello")
    assert isinstance(end, EndEvent)
    assert end.status == "completed"


@both_ways
async def test_keeps_line_separators(client: Callable[..., AgentClient], way: str) -> None:
    """Characters that Python takes for line ends stay inside the token that holds them."""
    events = await collected(client("separators"), way)
    assert TokenEvent(content=SEPARATORS) in events


@both_ways
async def test_an_error_of_the_turn_is_an_event(client: Callable[..., AgentClient], way: str) -> None:
    """A stream that reports an error is complete: nothing is raised."""
    assert ErrorEvent(error="ToolError", message="No luck") in await collected(client("error"), way)


@both_ways
@pytest.mark.parametrize("wire", ["cut", "cut_line", "broken", "foreign"])
async def test_a_broken_stream_is_raised(client: Callable[..., AgentClient], way: str, wire: str) -> None:
    """A stream without its end, cut by the socket or foreign is a failure that names the trace."""
    with pytest.raises(Failed) as failure:
        await collected(client(wire), way)
    assert failure.value.trace_id == TRACE


@both_ways
@pytest.mark.parametrize(("status", "kind"), [(404, Refused), (422, Refused), (500, Failed), (503, Failed)])
async def test_a_refusal_says_why(
    client: Callable[..., AgentClient], way: str, status: int, kind: type[AgentError]
) -> None:
    """A 4xx and a 5xx are different types and both carry the service's sentence and trace."""
    asking = client(str(status))
    with pytest.raises(kind, match=r"^Ask for one of: demo\.$") as refusal:
        asking.invoke("hi") if way == "sync" else await asking.ainvoke("hi")
    assert refusal.value.trace_id == TRACE
    assert getattr(refusal.value, "status", status) == status


@both_ways
@pytest.mark.parametrize(("status", "kind"), [(404, Refused), (502, Failed)])
async def test_a_refused_stream_says_why(
    client: Callable[..., AgentClient], way: str, status: int, kind: type[AgentError]
) -> None:
    """A stream refused before its first event is raised by type, even when a proxy speaks for the service."""
    with pytest.raises(kind, match=f"answered with status {status}"):
        await collected(client(str(status)), way)


@both_ways
async def test_nobody_there(way: str) -> None:
    """A port without a listener is told in one sentence with the address."""
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=address):
        await collected(AgentClient(address), way)


def test_somebody_else_there(client: Callable[..., AgentClient]) -> None:
    """An answer that keeps no contract is a failure, not a validation error."""
    with pytest.raises(Failed, match="not that of an agent service"):
        client("html").invoke("hi")


def test_the_user_goes_into_the_body_of_an_open_service(
    server: tuple[FastAPI, str], client: Callable[..., AgentClient]
) -> None:
    """Without a secret nothing but the body names the user, and what is not given is not sent."""
    list(client("plain", user_id="ada").stream("hi", thread_id="t-1"))
    headers, body = server[0].state.seen[-1]
    assert body == {"message": "hi", "thread_id": "t-1", "user_id": "ada"}
    assert not {"x-user-id", "authorization"} & set(headers)


def test_the_user_goes_into_a_header_beside_the_secret(
    server: tuple[FastAPI, str], client: Callable[..., AgentClient]
) -> None:
    """With a secret the user, this call's before the client's own, goes into the header it vouches for."""
    list(client("plain", user_id="ada", auth_secret="s3cret").stream("hi", user_id="grace"))
    headers, body = server[0].state.seen[-1]
    assert body == {"message": "hi"}
    assert (headers["x-user-id"], headers["authorization"]) == ("grace", "Bearer s3cret")


@given(st.data())
def test_reads_any_cut(data: st.DataObject) -> None:
    """However a stream is cut into chunks, the same events come out."""
    wire = WIRES["separators"].encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(chunks))
    events = list(EventReader().iterate(response))
    assert [event.type for event in events] == ["run", "token", "end"]
