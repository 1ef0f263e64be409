"""The client against the real service: every call, sync and async, and what is sent again."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

import telemetry
from app import client as module
from app.client import AgentClient, Failed, Refused, Unreachable
from app.schema import EndEvent, RunEvent
from telemetry.testing import Recorded
from tests.processes import free_port, serve
from tests.service import service

TRACE = "0af7651916cd43dd8448eb211c80319c"
both_ways = pytest.mark.parametrize("way", ["sync", "async"])


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path) as url:
        yield AgentClient(url, "chatbot", timeout=30, user_id="ada")


class Way:
    """A client whose calls are made now or awaited, whatever the test wants."""

    def __init__(self, client: AgentClient, way: str) -> None:
        self._client = client
        self._prefix = "" if way == "sync" else "a"

    async def __call__(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """What the call returns; all of what it streams."""
        result = getattr(self._client, self._prefix + method)(*args, **kwargs)
        if isinstance(result, Awaitable):
            return await result
        if isinstance(result, AsyncIterator):
            return [item async for item in result]
        return list(result) if isinstance(result, Iterator) else result


@both_ways
async def test_a_conversation(client: AgentClient, way: str) -> None:
    """A turn, its history, its thread in the list, its feedback, and its end."""
    call = Way(client, way)
    said = await call("invoke", "My name is Ada.", thread_id="t-1")
    history = await call("get_history", "t-1")
    answer = await call("feedback", said.run_id, "stars", 1, comment="Nice.", page=2)

    assert [message.type for message in history.messages] == ["human", "ai"]
    assert [(thread.thread_id, thread.title) for thread in (await call("get_threads")).threads] == [
        ("t-1", "My name is Ada.")
    ]
    stands = await call("get_thread", "t-1")
    assert (stands.run_id, stands.status) == (said.run_id, "completed")
    assert (answer.run_id, answer.trace_id, set(answer.places)) == (said.run_id, said.trace_id, {"langfuse"})
    assert (await call("feedback", said.run_id, "stars", None)).score_id == answer.score_id
    assert (await call("delete_thread", "t-1")).thread_id == "t-1"
    assert (await call("get_threads")).threads == []


@both_ways
async def test_files(client: AgentClient, way: str, tmp_path: Path) -> None:
    """Files go in from a path, an open file and bytes, and come out piece by piece."""
    call = Way(client, way)
    (tmp_path / "notes.txt").write_bytes(b"from a path")
    first = await call("upload", "t-1", tmp_path / "notes.txt")
    second = await call("upload", "t-1", b"from bytes", name="bytes.txt")

    assert [file.name for file in (await call("get_files", "t-1")).files] == ["notes.txt", "bytes.txt"]
    assert b"".join(await call("download", first.file_id)) == b"from a path"
    assert (await call("delete_file", second.file_id)).file_id == second.file_id
    with pytest.raises(Refused, match="no such file") as refused:
        await call("download", second.file_id)
    assert refused.value.status == 404


@both_ways
async def test_a_background_run(client: AgentClient, way: str) -> None:
    """A run goes on without its caller, is found again and followed to its end."""
    call = Way(client, way)
    pytest.importorskip("dbos", reason="background runs need DBOS")
    run = await call("submit", "Hello")
    events = await call("follow", run.run_id)

    assert isinstance(events[-1], EndEvent)
    assert (await call("get_run", run.run_id)).status == "completed"
    assert [each.run_id for each in (await call("get_runs")).runs] == [run.run_id]
    assert await call("cancel", run.run_id) is None


@both_ways
async def test_a_proxy_is_not_asked_for_loopback(
    client: AgentClient, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HTTP_PROXY set, a service on this machine is still talked to directly."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    call = Way(client, way)
    assert (await call("info")).agents
    assert (await call("invoke", "Hello", thread_id="t-1")).content


@both_ways
async def test_a_session_is_a_thread(client: AgentClient, way: str) -> None:
    """Who says session_id means the thread, and cannot mean two."""
    call = Way(client, way)
    await call("invoke", "Hello", session_id="t-1")

    assert (await call("get_history", "t-1")).messages
    with pytest.raises(ValueError, match="are the same"):
        await call("invoke", "Hello", session_id="t-1", thread_id="t-2")


@both_ways
@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_a_trace_can_be_insisted_on(client: AgentClient, spans: Recorded, way: str, verb: str) -> None:
    """A turn becomes part of the trace whose id is given, in the caller's process and in the service's."""
    answer = await Way(client, way)(verb, "Hello", trace_id=TRACE)

    assert (answer[0].trace_id if verb == "stream" else answer.trace_id) == TRACE
    assert {f"{span.context.trace_id:032x}" for span in spans.settled() if span.context} == {TRACE}
    assert telemetry.current_trace() is None


async def test_a_trace_can_be_insisted_on_without_tracing(spans: Recorded, tmp_path: Path) -> None:
    """A caller that does not trace names the trace as well."""
    with service(tmp_path) as url, telemetry.suppress_instrumentation():
        [run, *_] = AgentClient(url).stream("Hello", trace_id=TRACE)

    assert isinstance(run, RunEvent)
    assert run.trace_id == TRACE


@pytest.mark.parametrize("trace_id", ["", "0" * 32, "abc", TRACE.upper(), TRACE + "0"])
def test_what_is_no_trace_id_is_refused(trace_id: str) -> None:
    """A trace id that no backend would find is refused before anything is sent."""
    with pytest.raises(ValueError, match="is not a trace id"):
        telemetry.traceparent(trace_id)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AgentClient, list[str]]]:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    app, asked = FastAPI(), []

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def answer(path: str) -> JSONResponse:
        asked.append(path)
        return JSONResponse({"detail": "Busy.", "trace_id": TRACE}, 503)

    with serve(app) as url:
        yield AgentClient(url), asked


@both_ways
@pytest.mark.parametrize(
    ("name", "args", "times"),
    [
        ("info", (), 3),
        ("get_history", ("t-1",), 3),
        ("get_threads", (), 3),
        ("feedback", ("r-1", "stars", 1), 3),
        ("cancel", ("r-1",), 3),
        ("invoke", ("Hello",), 1),
        ("stream", ("Hello",), 1),
        ("delete_thread", ("t-1",), 1),
        ("upload", ("t-1", b"hello"), 1),
    ],
)
async def test_only_what_is_safe_is_sent_again(
    failing: tuple[AgentClient, list[str]], way: str, name: str, args: tuple[Any, ...], times: int
) -> None:
    """A service that is busy is asked again where that does no harm; no turn runs twice."""
    with pytest.raises(Failed, match=r"Busy\.") as failure:
        await Way(failing[0], way)(name, *args)

    assert (len(failing[1]), failure.value.status, failure.value.trace_id) == (times, 503, TRACE)


@both_ways
async def test_a_service_that_comes_back(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody at the address is an error of its own, after a few attempts."""
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    with pytest.raises(Unreachable):
        await Way(AgentClient(f"http://127.0.0.1:{free_port()}"), way)("info")


def test_every_call_has_its_twin_and_its_words() -> None:
    """Each public method exists sync and async, with the same arguments and a docstring."""
    names = {name for name, _ in inspect.getmembers(AgentClient, inspect.isfunction) if not name.startswith("_")}
    calls = {name for name in names if f"a{name}" in names}

    assert names == calls | {f"a{name}" for name in calls}
    for name in calls:
        method, twin = getattr(AgentClient, name), getattr(AgentClient, f"a{name}")
        assert inspect.signature(method).parameters == inspect.signature(twin).parameters
        assert method.__doc__
        assert method.__doc__ == twin.__doc__
