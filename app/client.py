"""The way to the agent service, for programs: the same calls sync and async, errors in types.

AgentError
├── Unreachable   nobody answers at the address
├── Refused       the service said no, and why (4xx)
└── Failed        the service or the turn broke (5xx, an error event, an answer cut off)
"""

import functools
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import anyio
import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

import telemetry
from app.schema import (
    ChatHistory,
    ChatMessage,
    EventAnswer,
    FeedbackAnswer,
    FileInfo,
    FileList,
    FileRemoved,
    RunEvent,
    RunInfo,
    RunList,
    ServiceInfo,
    StreamEvent,
    ThreadList,
    ThreadRemoved,
    ThreadState,
)

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", covariant=True)
Shape = TypeVar("Shape", bound=BaseModel)
_EVENT: TypeAdapter[StreamEvent] = TypeAdapter(StreamEvent)

# How often a call that changes nothing, or the same when repeated, is tried, and the first wait between.
ATTEMPTS = 3
FIRST_WAIT_S = 0.2
_TRANSIENT = {502, 503, 504}


class AgentError(Exception):
    """Talking to the agent service went wrong."""

    def __init__(self, message: str, trace_id: str | None = None) -> None:
        super().__init__(message)
        self.trace_id = trace_id


class Unreachable(AgentError):  # noqa: N818 - named for what happened
    """Nobody answers at the service's address."""


class Refused(AgentError):  # noqa: N818 - named for what happened
    """The service refused the request, with a sentence that says why."""

    def __init__(self, message: str, status: int, trace_id: str | None = None) -> None:
        super().__init__(message, trace_id)
        self.status = status


class Failed(AgentError):  # noqa: N818 - named for what happened
    """The service or the turn broke; `status` is that of its answer, None without one."""

    def __init__(self, message: str, trace_id: str | None = None, status: int | None = None) -> None:
        super().__init__(message, trace_id)
        self.status = status


class TurnOptions(TypedDict, total=False):
    """What a turn may be given besides its message.

    `session_id` is another word for `thread_id`. Whoever traces needs no `trace_id`: the turn joins the caller's trace.
    One that is given is continued instead, if the service trusts the caller.
    """

    model: str | None
    thread_id: str | None
    session_id: str | None
    trace_id: str | None
    user_id: str | None
    agent_config: dict[str, Any]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and how its answer is read; a `safe` one may be sent again when nothing came back."""

    request: httpx.Request
    read: Callable[[httpx.Response], T]
    safe: bool = False
    trace_id: str | None = None
    opened: BinaryIO | None = None


class Reader(Protocol[Item]):
    """Reads a stream as it comes, cut anywhere."""

    trace_id: str | None

    def feed(self, chunk: bytes) -> Iterator[Item]:
        """Yield what this chunk completes."""
        ...

    def end(self) -> None:
        """Raise if the stream has not come to its proper end."""


class EventReader:
    """Reads the bytes of a stream, cut anywhere, into events."""

    def __init__(self) -> None:
        self.trace_id: str | None = None
        self._rest = b""
        self._done = False

    def feed(self, chunk: bytes) -> Iterator[StreamEvent]:
        """The events that this chunk completes; comments and unknown types are passed over."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (event := self._event(line[5:].strip())):
                yield event

    def end(self) -> None:
        """Nothing, if the stream came to its proper end."""
        if not self._done:
            raise Failed("The answer broke off before its end.", self.trace_id)

    def _event(self, data: bytes) -> StreamEvent | None:
        if data == b"[DONE]":
            self._done = True
            return None
        event = self._parse(data)
        if isinstance(event, RunEvent):
            self.trace_id = event.trace_id
        return event

    def _parse(self, data: bytes) -> StreamEvent | None:
        try:
            return _EVENT.validate_json(data)
        except ValidationError as error:
            if error.errors()[0]["type"] == "union_tag_invalid":
                return None
            raise Failed("The service sent an event that its contract does not know.", self.trace_id) from error


class BytesReader:
    """Reads a stream as the bytes that it is."""

    trace_id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The bytes themselves."""
        yield chunk

    def end(self) -> None:
        """Nothing: the length of a file is checked by HTTP."""


def _both(
    build: Callable[Concatenate["AgentClient", P], Call[T]],
) -> tuple[Callable[Concatenate["AgentClient", P], T], Callable[Concatenate["AgentClient", P], Coroutine[Any, Any, T]]]:
    """Return the two ways to make a call that is described once: now, and awaited."""

    @functools.wraps(build)
    def now(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return self._do(build(self, *args, **kwargs))

    @functools.wraps(build)
    async def awaited(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._ado(build(self, *args, **kwargs))

    return now, awaited


def _both_streams(
    build: Callable[Concatenate["AgentClient", P], Call[Reader[T]]],
) -> tuple[
    Callable[Concatenate["AgentClient", P], Iterator[T]], Callable[Concatenate["AgentClient", P], AsyncIterator[T]]
]:
    """Return the two ways to read a stream that is described once: iterated over, and asynchronously."""

    @functools.wraps(build)
    def now(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._stream(build(self, *args, **kwargs))

    @functools.wraps(build)
    def awaited(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._astream(build(self, *args, **kwargs))

    return now, awaited


class AgentClient:
    """A client of the agent service at `base_url`, safe to share between threads.

    Each method has a twin for asynchronous code, whose name begins with an a: `invoke` and `ainvoke`.

    With `auth_secret` the user is named in a header that its holder vouches for, without it in the body.
    `timeout` is the longest silence in seconds; a stream that lives is never silent for long.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        agent: str | None = None,
        timeout: float = 120,
        auth_secret: str | None = None,
        user_id: str | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.agent = agent
        self.user_id = user_id
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 5))
        self._auth_secret = auth_secret
        telemetry.trust(self.base_url)

    def _info(self) -> Call[ServiceInfo]:
        """The agents and models that the service offers."""
        return self._call("GET", "/info", read=ServiceInfo, safe=True)

    def _invoke(self, message: str, **options: Unpack[TurnOptions]) -> Call[ChatMessage]:
        """The agent's answer to one message."""
        return self._turn("invoke", message, options, _reading(ChatMessage))

    def _stream_turn(self, message: str, **options: Unpack[TurnOptions]) -> Call[Reader[StreamEvent]]:
        """The events of one turn as they happen; its error is an event too, a broken stream is raised."""
        return self._turn("stream", message, options, lambda _: EventReader())

    def _submit(self, message: str, **options: Unpack[TurnOptions]) -> Call[RunInfo]:
        """A run in the background, which goes on without its caller."""
        if not self.agent:
            raise ValueError("A background run needs its agent: AgentClient(agent=…).")
        return self._turn("runs", message, options, _reading(RunInfo))

    def _get_run(self, run_id: str) -> Call[RunInfo]:
        """Where a background run stands."""
        return self._call("GET", "/runs/{run_id}", run_id, read=RunInfo, safe=True)

    def _get_runs(self, most: int = 20) -> Call[RunList]:
        """The user's background runs, the latest first."""
        return self._call("GET", "/runs", query={"most": most, "user_id": self.user_id}, read=RunList, safe=True)

    def _follow(self, run_id: str) -> Call[Reader[StreamEvent]]:
        """The events of a background run, from its first one on, as they happen."""
        request = self._request("GET", "/runs/{run_id}/events", run_id)
        return Call(request, lambda _: EventReader())

    def _cancel(self, run_id: str) -> Call[None]:
        """The run is asked to stop; its stream ends by itself."""
        return self._call("POST", "/runs/{run_id}/cancel", run_id, safe=True)

    def _get_history(self, thread_id: str, user_id: str | None = None) -> Call[ChatHistory]:
        """The thread's messages, its turns with their traces and votes, its files and its open question."""
        asked = {"thread_id": thread_id, "user_id": user_id}
        return self._call("POST", *self._path("history"), body=asked, read=ChatHistory, safe=True)

    def _get_threads(self, limit: int = 50, before: datetime | None = None) -> Call[ThreadList]:
        """The user's threads, the latest first; `before` is the `updated` of the last one seen."""
        query = {"limit": limit, "before": before and before.isoformat()}
        return self._call("GET", "/threads", query=query, read=ThreadList, safe=True)

    def _get_thread(self, thread_id: str) -> Call[ThreadState]:
        """Where the thread stands: its latest run; cheap to ask again and again."""
        return self._call("GET", "/threads/{thread_id}", thread_id, read=ThreadState, safe=True)

    def _delete_thread(self, thread_id: str) -> Call[ThreadRemoved]:
        """Nothing is left of the thread: no message, no file."""
        return self._call("DELETE", "/threads/{thread_id}", thread_id, read=ThreadRemoved)

    def _feedback(
        self,
        run_id: str,
        key: str,
        score: float | str | bool | None,
        comment: str | None = None,
        **kwargs: Any,
    ) -> Call[FeedbackAnswer]:
        """What became of a score on a run; the user's next one under the same key replaces it, None takes it back."""
        given = {"run_id": run_id, "key": key, "comment": comment, "kwargs": kwargs}
        return self._call("POST", "/feedback", body=given, nullable={"score": score}, read=FeedbackAnswer, safe=True)

    def _upload(self, thread_id: str, file: Path | BinaryIO | bytes, name: str | None = None) -> Call[FileInfo]:
        """What is known of the file once the service has it; a path's own name serves where none is given."""
        known = name or Path(getattr(file, "name", "") or "file").name
        opened = file.open("rb") if isinstance(file, Path) else None
        request = self._request(
            "POST", "/files", query={"thread_id": thread_id}, files={"file": (known, opened or file)}
        )
        return Call(request, _reading(FileInfo), opened=opened)

    def _get_files(self, thread_id: str) -> Call[FileList]:
        """What is known of the thread's files, oldest first."""
        return self._call("GET", "/files", query={"thread_id": thread_id}, read=FileList, safe=True)

    def _download(self, file_id: str) -> Call[Reader[bytes]]:
        """The file's bytes, piece by piece."""
        return Call(self._request("GET", "/files/{file_id}", file_id), lambda _: BytesReader())

    def _delete_file(self, file_id: str) -> Call[FileRemoved]:
        """The file is no longer there."""
        return self._call("DELETE", "/files/{file_id}", file_id, read=FileRemoved)

    def _event(self, name: str, thread_id: str | None = None, **about: bool | float | str) -> Call[EventAnswer]:
        """Where an action in a front end was recorded: page_load, file_upload, stop or feedback."""
        happened = {"name": name, "thread_id": thread_id, "about": about}
        return self._call("POST", "/events", body=happened, read=EventAnswer)

    def _keep(self, trace_id: str) -> Call[None]:
        """The service keeps its part of a trace that it had not kept."""
        return self._call("POST", "/traces/{trace_id}/keep", trace_id, safe=True)

    info, ainfo = _both(_info)
    invoke, ainvoke = _both(_invoke)
    stream, astream = _both_streams(_stream_turn)
    submit, asubmit = _both(_submit)
    get_run, aget_run = _both(_get_run)
    get_runs, aget_runs = _both(_get_runs)
    follow, afollow = _both_streams(_follow)
    cancel, acancel = _both(_cancel)
    get_history, aget_history = _both(_get_history)
    get_threads, aget_threads = _both(_get_threads)
    get_thread, aget_thread = _both(_get_thread)
    delete_thread, adelete_thread = _both(_delete_thread)
    feedback, afeedback = _both(_feedback)
    upload, aupload = _both(_upload)
    get_files, aget_files = _both(_get_files)
    download, adownload = _both_streams(_download)
    delete_file, adelete_file = _both(_delete_file)
    event, aevent = _both(_event)
    keep, akeep = _both(_keep)

    def _turn(self, verb: str, message: str, options: TurnOptions, read: Callable[[httpx.Response], T]) -> Call[T]:
        body = {"message": message, **options}
        trace_id, session_id = body.pop("trace_id", None), body.pop("session_id", None)
        if session_id and body.setdefault("thread_id", session_id) != session_id:
            raise ValueError("session_id and thread_id are two words for the same: give one of them.")
        request = self._request("POST", *self._path(verb), body=body)
        if trace_id:
            # A caller that traces has this header replaced by that of its own span, in the same trace.
            request.headers["traceparent"] = telemetry.traceparent(trace_id)
        return Call(request, read, trace_id=trace_id)

    def _call(
        self, method: str, *route: str, read: type[Shape] | None = None, safe: bool = False, **content: Any
    ) -> Call[Any]:
        return Call(self._request(method, *route, **content), _reading(read), safe)

    def _path(self, verb: str) -> tuple[str, ...]:
        return ("/{agent_id}/" + verb, self.agent) if self.agent else ("/" + verb,)

    def _request(
        self,
        method: str,
        route: str,
        *parts: str,
        body: dict[str, Any] | None = None,
        nullable: dict[str, Any] | None = None,
        query: dict[str, Any] | None = None,
        files: Any = None,
    ) -> httpx.Request:
        path = re.sub(r"{\w+}", "{}", route).format(*(quote(part, safe="") for part in parts))
        content = {**_given(body), **(nullable or {})}
        user = content.pop("user_id", self.user_id)
        headers: dict[str, str | bytes] = {}
        if self._auth_secret:
            headers["Authorization"] = f"Bearer {self._auth_secret}"
        if user and body and not self._auth_secret:
            content["user_id"] = user
        elif user:
            headers["X-User-Id"] = user.encode()
        return httpx.Request(
            method,
            self.base_url + path,
            params=_given(query),
            json=None if body is None else content,
            files=files,
            headers=headers,  # pyright: ignore[reportArgumentType] - httpx takes bytes beside text
            extensions={
                "timeout": self._timeout.as_dict(),
                # What the call's span is named after.
                "service.peer.name": "agent-api",
                "url.template": route,
            },
        )

    def _do(self, call: Call[T]) -> T:
        for wait in _waits(call):
            try:
                with self._sending(call), httpx.Client(verify=_tls()) as http:
                    response = http.send(call.request)
                return call.read(response)
            except AgentError as error:
                if wait is None or not _is_transient(error):
                    raise
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _ado(self, call: Call[T]) -> T:
        for wait in _waits(call):
            try:
                with self._sending(call):
                    async with httpx.AsyncClient(verify=_tls()) as http:
                        response = await http.send(call.request)
                return call.read(response)
            except AgentError as error:
                if wait is None or not _is_transient(error):
                    raise
                await anyio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _stream(self, call: Call[Reader[T]]) -> Iterator[T]:
        reader: Reader[T] = call.read(httpx.Response(200))
        with self._errors(reader), httpx.Client(verify=_tls()) as http:
            with telemetry.continued(call.trace_id):
                response = http.send(call.request, stream=True)
            try:
                if response.is_error:
                    response.read()
                _check(response)
                for chunk in response.iter_bytes():
                    yield from reader.feed(chunk)
                reader.end()
            finally:
                response.close()

    async def _astream(self, call: Call[Reader[T]]) -> AsyncIterator[T]:
        reader: Reader[T] = call.read(httpx.Response(200))
        with self._errors(reader):
            async with httpx.AsyncClient(verify=_tls()) as http:
                with telemetry.continued(call.trace_id):
                    response = await http.send(call.request, stream=True)
                if response.is_error:
                    await response.aread()
                _check(response)
                async for chunk in response.aiter_bytes():
                    for item in reader.feed(chunk):
                        yield item
                reader.end()

    @contextmanager
    def _sending(self, call: Call[Any]) -> Iterator[None]:
        with self._errors(), telemetry.continued(call.trace_id), call.opened or nullcontext():
            yield

    @contextmanager
    def _errors(self, reader: Reader[Any] | None = None) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"No agent service answers at {self.base_url}.") from error
        except httpx.TransportError as error:
            what = "fell silent" if isinstance(error, httpx.TimeoutException) else "broke"
            sentence = f"The connection to {self.base_url} {what} before the answer was complete."
            raise Failed(sentence, reader.trace_id if reader else None) from error


class _Problem(BaseModel):
    detail: str
    trace_id: str | None = None


def _check(response: httpx.Response) -> None:
    if response.is_client_error:
        problem = _problem(response)
        raise Refused(problem.detail, response.status_code, problem.trace_id)
    if response.is_server_error:
        problem = _problem(response)
        raise Failed(problem.detail, problem.trace_id, response.status_code)


def _problem(response: httpx.Response) -> _Problem:
    try:
        return _Problem.model_validate_json(response.content)
    except ValidationError:
        return _Problem(detail=f"{response.request.url} answered with status {response.status_code}.")


def _reading(shape: type[Shape] | None) -> Callable[[httpx.Response], Any]:
    """Return how an answer of this shape is read; None where only its status counts."""

    def read(response: httpx.Response) -> Any:
        _check(response)
        try:
            return shape.model_validate_json(response.content) if shape else None
        except ValidationError as error:
            raise Failed(f"What {response.request.url} answered is not from this agent service.") from error

    return read


def _waits(call: Call[Any]) -> list[float | None]:
    """Return how long to wait after each attempt; None after the last."""
    return [FIRST_WAIT_S * 2**attempt for attempt in range(ATTEMPTS - 1)] * call.safe + [None]


def _is_transient(error: AgentError) -> bool:
    return isinstance(error, Unreachable) or (isinstance(error, Failed) and error.status in {None, *_TRANSIENT})


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes 20 ms: made once, not for every call
