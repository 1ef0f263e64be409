"""A client of the agent service: the same calls sync and async, errors as types.

AgentError
├── Unreachable   nothing answers at the address
├── Refused       the service refused the request, and says why (4xx)
└── Failed        the service or the turn failed (5xx, an error event, an incomplete answer)
"""

import functools
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import anyio
import httpx
from httpx_sse import EventSource, SSEError
from pydantic import BaseModel, TypeAdapter, ValidationError

import telemetry
from app.schema import (
    Answer,
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
    SpanList,
    StreamEvent,
    ThreadList,
    ThreadRemoved,
    ThreadState,
)

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", covariant=True)
Model = TypeVar("Model", bound=BaseModel)
_EVENT: TypeAdapter[StreamEvent] = TypeAdapter(StreamEvent)
_ANSWERS: TypeAdapter[dict[str, Answer]] = TypeAdapter(dict[str, Answer])

# How often an idempotent call is tried, and the wait after the first attempt.
MAX_ATTEMPTS = 3
FIRST_WAIT_S = 0.2
# How long a call, of whatever kind, is sent again because the service says when: it has not begun to serve it.
MAX_RETRY_AFTER_S = 15.0
# How often a stream that broke is rejoined.
REJOIN_WAIT_S = 0.5
_TRANSIENT = {502, 503, 504}
# A proxy of HTTP_PROXY cannot reach a service on this machine.
_NO_PROXY = {"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None}


class AgentError(Exception):
    """A request to the agent service failed."""

    def __init__(self, message: str, trace_id: str | None = None) -> None:
        super().__init__(message)
        self.trace_id = trace_id


class Unreachable(AgentError):  # noqa: N818 - named for what happened
    """Nothing answers at the service's address."""


class Refused(AgentError):  # noqa: N818 - named for what happened
    """The service refused the request, with a sentence that says why.

    `retry_after_s` is set where a limit is reached, for the seconds until the service takes the request.
    """

    def __init__(
        self, message: str, status: int, trace_id: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, trace_id)
        self.status = status
        self.retry_after_s = retry_after_s


class Failed(AgentError):  # noqa: N818 - named for what happened
    """The service or the turn failed; `status` is that of its answer, None without one.

    `retry_after_s` is set where the service has refused the request for now, and says when to send it again;
    `interrupted` where the connection was lost before the answer was complete.
    """

    def __init__(
        self,
        message: str,
        trace_id: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        *,
        interrupted: bool = False,
    ) -> None:
        super().__init__(message, trace_id)
        self.status = status
        self.retry_after_s = retry_after_s
        self.interrupted = interrupted


class TurnOptions(TypedDict, total=False):
    """The options of a turn, besides its message.

    `answers` has one for each question that is answered, by the question's id; a message alone answers a single one.
    With `on_disconnect="continue"` a streamed turn outlives its reader, and `stream` rejoins it where its connection
    breaks; to stop such a turn, cancel it.
    `replaces` is a run whose question is asked again, with its own message or another one: the earlier version stays.
    `session_id` is another name of `thread_id`. A caller that traces needs no `trace_id`: the turn joins the caller's
    trace. Without tracing, the turn joins the trace of this id, if the service trusts the caller.
    """

    model: str | None
    thread_id: str | None
    session_id: str | None
    trace_id: str | None
    user_id: str | None
    agent_config: dict[str, Any]
    answers: Mapping[str, Answer]
    on_disconnect: Literal["cancel", "continue"]
    replaces: str | None


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and how to read its response; an `idempotent` one is sent again if there was no response.

    A stream that breaks is continued by the request that `rejoin` returns, if it returns one.
    """

    request: httpx.Request
    read: Callable[[httpx.Response], T]
    idempotent: bool = False
    trace_id: str | None = None
    file: BinaryIO | None = None
    rejoin: "Callable[[], httpx.Request | None]" = lambda: None


class Reader(Protocol[Item]):
    """Reads the items of a streamed answer as they arrive."""

    trace_id: str | None

    def iterate(self, response: httpx.Response) -> Iterator[Item]:
        """Yield the items; raise `Failed` if the stream breaks off before its end."""
        ...

    def aiterate(self, response: httpx.Response) -> AsyncGenerator[Item, None]:
        """Yield the items; raise `Failed` if the stream breaks off before its end."""
        ...


class EventReader:
    """Reads the events of a turn or a run, over one connection or several.

    `run_id` and `trace_id` are known from the first one on, `last_event_id` is the number of the last one.
    """

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id
        self.trace_id: str | None = None
        self.last_event_id = ""
        self._done = False

    def iterate(self, response: httpx.Response) -> Iterator[StreamEvent]:
        """Yield the events, without those of unknown types."""
        for message in EventSource(response).iter_sse():
            if event := self._parse(message.data):
                self.last_event_id = message.id
                yield event
        self._check_end()

    async def aiterate(self, response: httpx.Response) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events, without those of unknown types."""
        async with aclosing(EventSource(response).aiter_sse()) as messages:
            async for message in messages:
                if event := self._parse(message.data):
                    self.last_event_id = message.id
                    yield event
        self._check_end()

    def _parse(self, data: str) -> StreamEvent | None:
        # A comment after an event with an id arrives as a message without data.
        if not data:
            return None
        if data == "[DONE]":
            self._done = True
            return None
        try:
            event = _EVENT.validate_json(data)
        except ValidationError as error:
            if error.errors()[0]["type"] == "union_tag_invalid":
                return None
            raise Failed("The service sent an invalid event.", self.trace_id) from error
        if isinstance(event, RunEvent):
            self.run_id, self.trace_id = event.run_id, event.trace_id
        return event

    def _check_end(self) -> None:
        if not self._done:
            raise Failed("The answer was cut off before it was complete.", self.trace_id, interrupted=True)


class BytesReader:
    """Reads the bytes of a file; HTTP itself checks their number."""

    trace_id: str | None = None

    def iterate(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the bytes, chunk by chunk."""
        return response.iter_bytes()

    async def aiterate(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the bytes, chunk by chunk."""
        async for chunk in response.aiter_bytes():
            yield chunk


def _sync_and_async(
    build: Callable[Concatenate["AgentClient", P], Call[T]],
) -> tuple[Callable[Concatenate["AgentClient", P], T], Callable[Concatenate["AgentClient", P], Coroutine[Any, Any, T]]]:
    """Return the sync and the async method of a call that is described once."""

    @functools.wraps(build)
    def call(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return self._do(build(self, *args, **kwargs))

    @functools.wraps(build)
    async def acall(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._ado(build(self, *args, **kwargs))

    return call, acall


def _sync_and_async_streams(
    build: Callable[Concatenate["AgentClient", P], Call[Reader[T]]],
) -> tuple[
    Callable[Concatenate["AgentClient", P], Iterator[T]], Callable[Concatenate["AgentClient", P], AsyncIterator[T]]
]:
    """Return the sync and the async method of a stream that is described once."""

    @functools.wraps(build)
    def call(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._stream(build(self, *args, **kwargs))

    @functools.wraps(build)
    def acall(self: "AgentClient", *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._astream(build(self, *args, **kwargs))

    return call, acall


class AgentClient:
    """A client of the agent service at `base_url`, safe to share between threads.

    Each method has an async version, whose name begins with an a: `invoke` and `ainvoke`.

    With `auth_secret` the user is sent in a header, without it in the body. `timeout` is the longest silence in
    seconds, also of a stream that is rejoined; a stream sends something at least once a second.
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
        self._silence_s = timeout
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 5))
        self._auth_secret = auth_secret
        telemetry.trust(self.base_url)

    def _info(self) -> Call[ServiceInfo]:
        """Return the agents and models that the service offers."""
        return self._call("GET", "/info", read=ServiceInfo, idempotent=True)

    def _invoke(self, message: str | None = None, **options: Unpack[TurnOptions]) -> Call[ChatMessage]:
        """Send one message and return the agent's answer."""
        return self._turn("invoke", message, options, _reader_of(ChatMessage))

    def _stream_turn(self, message: str | None = None, **options: Unpack[TurnOptions]) -> Call[Reader[StreamEvent]]:
        """Send one message and yield its events; an error of the turn is an event, a broken stream is raised."""
        reader = EventReader()
        call: Call[Reader[StreamEvent]] = self._turn("stream", message, options, lambda _: reader)
        is_rejoined = options.get("on_disconnect") == "continue"
        return replace(call, rejoin=lambda: self._rest_of(reader)) if is_rejoined else call

    def _submit(self, message: str | None = None, **options: Unpack[TurnOptions]) -> Call[RunInfo]:
        """Submit a background run, which continues without its caller."""
        if not self.agent:
            raise ValueError("A background run needs its agent: AgentClient(agent=…).")
        return self._turn("runs", message, options, _reader_of(RunInfo))

    def _get_run(self, run_id: str) -> Call[RunInfo]:
        """Return the state of a background run."""
        return self._call("GET", "/runs/{run_id}", run_id, read=RunInfo, idempotent=True)

    def _get_runs(self, most: int = 20) -> Call[RunList]:
        """Return the user's background runs, the latest first."""
        return self._call("GET", "/runs", query={"most": most, "user_id": self.user_id}, read=RunList, idempotent=True)

    def _follow(self, run_id: str) -> Call[Reader[StreamEvent]]:
        """Yield the events of a background run, or of a turn that continues without its reader, as they happen.

        They begin with the first one, and go on if the connection breaks.
        """
        reader = EventReader(run_id)
        request = self._request("GET", "/runs/{run_id}/events", run_id)
        return Call(request, lambda _: reader, rejoin=lambda: self._rest_of(reader))

    def _get_spans(self, run_id: str) -> Call[SpanList]:
        """Return the tree of a run that is over: names, times, tokens and failures, without content."""
        return self._call("GET", "/runs/{run_id}/spans", run_id, read=SpanList, idempotent=True)

    def _cancel(self, run_id: str) -> Call[None]:
        """Cancel the run; its stream ends by itself."""
        return self._call("POST", "/runs/{run_id}/cancel", run_id, idempotent=True)

    def _get_history(self, thread_id: str, user_id: str | None = None) -> Call[ChatHistory]:
        """Return the thread's messages, its turns with their traces and votes, its files and its open questions."""
        body = {"thread_id": thread_id, "user_id": user_id}
        return self._call("POST", *self._path("history"), body=body, read=ChatHistory, idempotent=True)

    def _get_threads(
        self, limit: int = 50, before: datetime | None = None, words: str | None = None
    ) -> Call[ThreadList]:
        """Return the user's threads, the latest first.

        `before` is the `updated` of the last one seen; with `words`, only those in which this text was said.
        """
        query = {"limit": limit, "before": before and before.isoformat(), "words": words}
        return self._call("GET", "/threads", query=query, read=ThreadList, idempotent=True)

    def _get_thread(self, thread_id: str) -> Call[ThreadState]:
        """Return the state of the thread, with its latest run: cheap enough to poll."""
        return self._call("GET", "/threads/{thread_id}", thread_id, read=ThreadState, idempotent=True)

    def _rename_thread(self, thread_id: str, title: str) -> Call[ThreadState]:
        """Give the thread another title."""
        return self._call(
            "PATCH", "/threads/{thread_id}", thread_id, body={"title": title}, read=ThreadState, idempotent=True
        )

    def _show_version(self, thread_id: str, run_id: str) -> Call[ThreadState]:
        """Show the conversation with this run, one of its versions; the choice is stored."""
        return self._call(
            "PATCH", "/threads/{thread_id}", thread_id, body={"version": run_id}, read=ThreadState, idempotent=True
        )

    def _delete_thread(self, thread_id: str) -> Call[ThreadRemoved]:
        """Delete the thread with its messages and files."""
        return self._call("DELETE", "/threads/{thread_id}", thread_id, read=ThreadRemoved)

    def _feedback(
        self,
        run_id: str,
        key: str,
        score: float | str | bool | None,
        comment: str | None = None,
        **kwargs: Any,
    ) -> Call[FeedbackAnswer]:
        """Score a run; the user's next score under the same key replaces this one, None deletes it."""
        body = {"run_id": run_id, "key": key, "comment": comment, "kwargs": kwargs}
        return self._call(
            "POST", "/feedback", body=body, nullable={"score": score}, read=FeedbackAnswer, idempotent=True
        )

    def _upload(self, thread_id: str, file: Path | BinaryIO | bytes, name: str | None = None) -> Call[FileInfo]:
        """Upload a file to the thread, under the path's own name where none is given; return its metadata."""
        file_name = name or Path(getattr(file, "name", "") or "file").name
        opened = file.open("rb") if isinstance(file, Path) else None
        request = self._request(
            "POST", "/files", query={"thread_id": thread_id}, files={"file": (file_name, opened or file)}
        )
        return Call(request, _reader_of(FileInfo), file=opened)

    def _get_files(self, thread_id: str) -> Call[FileList]:
        """Return the metadata of the thread's files, oldest first."""
        return self._call("GET", "/files", query={"thread_id": thread_id}, read=FileList, idempotent=True)

    def _download(self, file_id: str) -> Call[Reader[bytes]]:
        """Yield the file's bytes, chunk by chunk."""
        return Call(self._request("GET", "/files/{file_id}", file_id), lambda _: BytesReader())

    def _delete_file(self, file_id: str) -> Call[FileRemoved]:
        """Delete the file."""
        return self._call("DELETE", "/files/{file_id}", file_id, read=FileRemoved)

    def _event(self, name: str, thread_id: str | None = None, **about: bool | float | str) -> Call[EventAnswer]:
        """Record an action in a front end (page_load, file_upload, stop or feedback); return its trace."""
        body = {"name": name, "thread_id": thread_id, "about": about}
        return self._call("POST", "/events", body=body, read=EventAnswer)

    def _keep(self, trace_id: str) -> Call[None]:
        """Make the service keep its spans of a trace that was dropped."""
        return self._call("POST", "/traces/{trace_id}/keep", trace_id, idempotent=True)

    info, ainfo = _sync_and_async(_info)
    invoke, ainvoke = _sync_and_async(_invoke)
    stream, astream = _sync_and_async_streams(_stream_turn)
    submit, asubmit = _sync_and_async(_submit)
    get_run, aget_run = _sync_and_async(_get_run)
    get_runs, aget_runs = _sync_and_async(_get_runs)
    follow, afollow = _sync_and_async_streams(_follow)
    get_spans, aget_spans = _sync_and_async(_get_spans)
    cancel, acancel = _sync_and_async(_cancel)
    get_history, aget_history = _sync_and_async(_get_history)
    get_threads, aget_threads = _sync_and_async(_get_threads)
    get_thread, aget_thread = _sync_and_async(_get_thread)
    rename_thread, arename_thread = _sync_and_async(_rename_thread)
    show_version, ashow_version = _sync_and_async(_show_version)
    delete_thread, adelete_thread = _sync_and_async(_delete_thread)
    feedback, afeedback = _sync_and_async(_feedback)
    upload, aupload = _sync_and_async(_upload)
    get_files, aget_files = _sync_and_async(_get_files)
    download, adownload = _sync_and_async_streams(_download)
    delete_file, adelete_file = _sync_and_async(_delete_file)
    event, aevent = _sync_and_async(_event)
    keep, akeep = _sync_and_async(_keep)

    def _turn(
        self, verb: str, message: str | None, options: TurnOptions, read: Callable[[httpx.Response], T]
    ) -> Call[T]:
        answers = _ANSWERS.dump_python({**options.get("answers", {})}) or None
        body = {"message": message, **options, "answers": answers}
        trace_id, session_id = body.pop("trace_id", None), body.pop("session_id", None)
        if session_id and body.setdefault("thread_id", session_id) != session_id:
            raise ValueError("session_id and thread_id are the same: pass only one of them.")
        request = self._request("POST", *self._path(verb), body=body)
        if trace_id:
            # If the caller is traced, its own span replaces this header, in the same trace.
            request.headers["traceparent"] = telemetry.traceparent(trace_id)
        return Call(request, read, trace_id=trace_id)

    def _call(
        self, method: str, *route: str, read: type[Model] | None = None, idempotent: bool = False, **content: Any
    ) -> Call[Any]:
        return Call(self._request(method, *route, **content), _reader_of(read), idempotent)

    def _rest_of(self, reader: EventReader) -> httpx.Request | None:
        """Return the request for the events that the reader has not seen; None before the first one."""
        if reader.run_id is None:
            return None
        request = self._request("GET", "/runs/{run_id}/events", reader.run_id)
        request.headers["Last-Event-ID"] = reader.last_event_id or "0"
        return request

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
        content = {**_without_none(body), **(nullable or {})}
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
            params=_without_none(query),
            json=None if body is None else content,
            files=files,
            headers=headers,  # pyright: ignore[reportArgumentType] - httpx takes bytes beside text
            extensions={
                "timeout": self._timeout.as_dict(),
                # The route, which becomes part of the span's name.
                "service.peer.name": "agent-api",
                "url.template": route,
            },
        )

    def _do(self, call: Call[T]) -> T:
        retries = _Retries(idempotent=call.idempotent, again=not call.file)
        while True:
            try:
                with self._sending(call), httpx.Client(verify=_tls(), mounts=_NO_PROXY) as http:
                    response = http.send(call.request)
                return call.read(response)
            except AgentError as error:
                time.sleep(retries.wait_s(error))

    async def _ado(self, call: Call[T]) -> T:
        retries = _Retries(idempotent=call.idempotent, again=not call.file)
        while True:
            try:
                with self._sending(call):
                    async with httpx.AsyncClient(verify=_tls(), mounts=_NO_PROXY) as http:
                        response = await http.send(call.request)
                return call.read(response)
            except AgentError as error:
                await anyio.sleep(retries.wait_s(error))

    def _stream(self, call: Call[Reader[T]]) -> Iterator[T]:
        reader: Reader[T] = call.read(httpx.Response(200))
        rejoins = _Rejoins(call, self._silence_s)
        while True:
            try:
                with self._errors(reader), httpx.Client(verify=_tls(), mounts=_NO_PROXY) as http:
                    response = self._begin(http, call)
                    try:
                        for item in reader.iterate(response):
                            rejoins.note_progress()
                            yield item
                    finally:
                        response.close()
            except (Unreachable, Failed) as error:
                call = rejoins.next(error)
                time.sleep(REJOIN_WAIT_S)
            else:
                return

    async def _astream(self, call: Call[Reader[T]]) -> AsyncIterator[T]:
        reader: Reader[T] = call.read(httpx.Response(200))
        rejoins = _Rejoins(call, self._silence_s)
        while True:
            try:
                with self._errors(reader):
                    async with httpx.AsyncClient(verify=_tls(), mounts=_NO_PROXY) as http:
                        response = await self._abegin(http, call)
                        async with aclosing(reader.aiterate(response)) as items:
                            async for item in items:
                                rejoins.note_progress()
                                yield item
            except (Unreachable, Failed) as error:
                call = rejoins.next(error)
                await anyio.sleep(REJOIN_WAIT_S)
            else:
                return

    def _begin(self, http: httpx.Client, call: Call[Any]) -> httpx.Response:
        """Return the answer whose body is still to be read; raise where it is an error."""
        retries = _Retries()
        while True:
            with telemetry.attach_trace(call.trace_id):
                response = http.send(call.request, stream=True)
            if not response.is_error:
                return response
            response.read()
            try:
                _check(response)
            except Failed as error:
                time.sleep(retries.wait_s(error))

    async def _abegin(self, http: httpx.AsyncClient, call: Call[Any]) -> httpx.Response:
        """Return the answer whose body is still to be read; raise where it is an error."""
        retries = _Retries()
        while True:
            with telemetry.attach_trace(call.trace_id):
                response = await http.send(call.request, stream=True)
            if not response.is_error:
                return response
            await response.aread()
            try:
                _check(response)
            except Failed as error:
                await anyio.sleep(retries.wait_s(error))

    @contextmanager
    def _sending(self, call: Call[Any]) -> Iterator[None]:
        with self._errors(), telemetry.attach_trace(call.trace_id), call.file or nullcontext():
            yield

    @contextmanager
    def _errors(self, reader: Reader[Any] | None = None) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"No agent service answers at {self.base_url}.") from error
        except SSEError as error:
            raise Failed(f"The response of {self.base_url} is not that of an agent service.") from error
        except httpx.TransportError as error:
            happened = "timed out" if isinstance(error, httpx.TimeoutException) else "was interrupted"
            sentence = f"The connection to {self.base_url} {happened} before the answer was complete."
            raise Failed(sentence, reader.trace_id if reader else None, interrupted=True) from error


class _ErrorBody(BaseModel):
    detail: str
    trace_id: str | None = None


def _check(response: httpx.Response) -> None:
    if response.is_client_error:
        body = _error_body(response)
        raise Refused(body.detail, response.status_code, body.trace_id, _retry_after_s(response))
    if response.is_server_error:
        body = _error_body(response)
        raise Failed(body.detail, body.trace_id, response.status_code, _retry_after_s(response))


def _error_body(response: httpx.Response) -> _ErrorBody:
    try:
        return _ErrorBody.model_validate_json(response.content)
    except ValidationError:
        return _ErrorBody(detail=f"{response.request.url} answered with status {response.status_code}.")


def _reader_of(model: type[Model] | None) -> Callable[[httpx.Response], Any]:
    """Return a function that reads an answer of this model; with None it checks the status only."""

    def read(response: httpx.Response) -> Any:
        _check(response)
        try:
            return model.model_validate_json(response.content) if model else None
        except ValidationError as error:
            raise Failed(f"The response of {response.request.url} is not that of an agent service.") from error

    return read


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds after which the service takes this request; None where it does not say, or names a date."""
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if response.status_code in (429, 503) and seconds.isdecimal() else None


class _Retries:
    """How often one call is sent again, and when."""

    def __init__(self, *, idempotent: bool = False, again: bool = True) -> None:
        self._waits = [FIRST_WAIT_S * 2**attempt for attempt in range(MAX_ATTEMPTS - 1)] if idempotent else []
        self._deadline = time.monotonic() + MAX_RETRY_AFTER_S if again else 0.0

    def wait_s(self, error: AgentError) -> float:
        """Return how long to wait before the next attempt; raise the error where there is none."""
        retry_after_s = error.retry_after_s if isinstance(error, Failed) else None
        if retry_after_s is not None and time.monotonic() + retry_after_s < self._deadline:
            return retry_after_s
        if not self._waits or not _is_transient(error):
            raise error
        return self._waits.pop(0)


class _Rejoins(Generic[T]):
    """How long a stream that breaks is continued."""

    def __init__(self, call: Call[T], silence_s: float) -> None:
        self._call, self._silence_s = call, silence_s
        self.note_progress()

    def note_progress(self) -> None:
        """Note that something has arrived."""
        self._deadline = time.monotonic() + self._silence_s

    def next(self, error: AgentError) -> Call[T]:
        """Return the call that continues the stream; raise the error where there is none."""
        is_broken = isinstance(error, Unreachable) or (isinstance(error, Failed) and error.interrupted)
        request = self._call.rejoin() if is_broken or _is_transient_status(error) else None
        if request is None or time.monotonic() > self._deadline:
            raise error
        return replace(self._call, request=request)


def _is_transient_status(error: AgentError) -> bool:
    return isinstance(error, Failed) and error.status in _TRANSIENT


def _is_transient(error: AgentError) -> bool:
    return isinstance(error, Unreachable) or (isinstance(error, Failed) and error.status in {None, *_TRANSIENT})


def _without_none(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes 20 ms: created once, not for every call
