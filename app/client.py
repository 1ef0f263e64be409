"""The way to the agent service, for programs: the same calls sync and async, errors in types.

AgentError
├── Unreachable   nobody answers at the address
├── Refused       the service said no, and why (4xx)
└── Failed        the service or the turn broke (5xx, an error event, an answer cut off)
"""

import functools
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

import telemetry
from app.schema import ChatHistory, ChatMessage, RunEvent, ServiceInfo, StreamEvent

Shape = TypeVar("Shape", bound=BaseModel)
_EVENT: TypeAdapter[StreamEvent] = TypeAdapter(StreamEvent)


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
    """The service or the turn broke."""


class TurnOptions(TypedDict, total=False):
    """What a turn may be given besides its message."""

    model: str | None
    thread_id: str | None
    user_id: str | None
    agent_config: dict[str, Any]


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


class AgentClient:
    """A client of the agent service at `base_url`, safe to share between threads.

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

    def info(self) -> ServiceInfo:
        """The agents and models that the service offers."""
        return _read(self._send(self._request("GET", "/info")), ServiceInfo)

    async def ainfo(self) -> ServiceInfo:
        """The agents and models that the service offers."""
        return _read(await self._asend(self._request("GET", "/info")), ServiceInfo)

    def invoke(self, message: str, **options: Unpack[TurnOptions]) -> ChatMessage:
        """The agent's answer to one message."""
        return _read(self._send(self._turn("invoke", message, options)), ChatMessage)

    async def ainvoke(self, message: str, **options: Unpack[TurnOptions]) -> ChatMessage:
        """The agent's answer to one message."""
        return _read(await self._asend(self._turn("invoke", message, options)), ChatMessage)

    def stream(self, message: str, **options: Unpack[TurnOptions]) -> Iterator[StreamEvent]:
        """The events of one turn as they happen; its error is an event too, a broken stream is raised."""
        request, reader = self._turn("stream", message, options), EventReader()
        with self._errors(reader), httpx.Client(verify=_tls()) as http:
            response = http.send(request, stream=True)
            if response.is_error:
                response.read()
            _check(response)
            for chunk in response.iter_bytes():
                yield from reader.feed(chunk)
            reader.end()

    async def astream(self, message: str, **options: Unpack[TurnOptions]) -> AsyncIterator[StreamEvent]:
        """The events of one turn as they happen; its error is an event too, a broken stream is raised."""
        request, reader = self._turn("stream", message, options), EventReader()
        with self._errors(reader):
            async with httpx.AsyncClient(verify=_tls()) as http:
                response = await http.send(request, stream=True)
                if response.is_error:
                    await response.aread()
                _check(response)
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        yield event
                reader.end()

    def get_history(self, thread_id: str, user_id: str | None = None) -> ChatHistory:
        """The thread's messages and the pages of their traces."""
        return _read(self._send(self._history(thread_id, user_id)), ChatHistory)

    async def aget_history(self, thread_id: str, user_id: str | None = None) -> ChatHistory:
        """The thread's messages and the pages of their traces."""
        return _read(await self._asend(self._history(thread_id, user_id)), ChatHistory)

    def cancel(self, run_id: str) -> None:
        """The run is asked to stop; its stream ends by itself."""
        _check(self._send(self._cancel(run_id)))

    async def acancel(self, run_id: str) -> None:
        """The run is asked to stop; its stream ends by itself."""
        _check(await self._asend(self._cancel(run_id)))

    def keep(self, trace_id: str) -> None:
        """The service keeps its part of a trace that it had not kept."""
        _check(self._send(self._request("POST", f"/traces/{trace_id}/keep")))

    async def akeep(self, trace_id: str) -> None:
        """The service keeps its part of a trace that it had not kept."""
        _check(await self._asend(self._request("POST", f"/traces/{trace_id}/keep")))

    def _turn(self, verb: str, message: str, options: TurnOptions) -> httpx.Request:
        return self._request("POST", *self._path(verb), body={"message": message, **options})

    def _history(self, thread_id: str, user_id: str | None) -> httpx.Request:
        return self._request("POST", *self._path("history"), body={"thread_id": thread_id, "user_id": user_id})

    def _cancel(self, run_id: str) -> httpx.Request:
        return self._request("POST", "/runs/{run_id}/cancel", run_id)

    def _path(self, verb: str) -> tuple[str, ...]:
        return ("/{agent_id}/" + verb, self.agent) if self.agent else ("/" + verb,)

    def _request(self, method: str, route: str, *parts: str, body: dict[str, Any] | None = None) -> httpx.Request:
        path = re.sub(r"{\w+}", "{}", route).format(*(quote(part, safe="") for part in parts))
        content = {name: value for name, value in (body or {}).items() if value is not None}
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
            json=None if body is None else content,
            headers=headers,  # pyright: ignore[reportArgumentType] - httpx takes bytes beside text
            extensions={
                "timeout": self._timeout.as_dict(),
                # What the call's span is named after.
                "service.peer.name": "agent-api",
                "url.template": route,
            },
        )

    def _send(self, request: httpx.Request) -> httpx.Response:
        with self._errors(), httpx.Client(verify=_tls()) as http:
            return http.send(request)

    async def _asend(self, request: httpx.Request) -> httpx.Response:
        with self._errors():
            async with httpx.AsyncClient(verify=_tls()) as http:
                return await http.send(request)

    @contextmanager
    def _errors(self, reader: EventReader | None = None) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"No agent service answers at {self.base_url}.") from error
        except httpx.TransportError as error:
            what = "fell silent" if isinstance(error, httpx.TimeoutException) else "broke"
            sentence = f"The connection to {self.base_url} {what} before the answer was complete."
            raise Failed(sentence, reader and reader.trace_id) from error


class _Problem(BaseModel):
    detail: str
    trace_id: str | None = None


def _check(response: httpx.Response) -> None:
    if response.is_client_error:
        problem = _problem(response)
        raise Refused(problem.detail, response.status_code, problem.trace_id)
    if response.is_server_error:
        problem = _problem(response)
        raise Failed(problem.detail, problem.trace_id)


def _problem(response: httpx.Response) -> _Problem:
    try:
        return _Problem.model_validate_json(response.content)
    except ValidationError:
        return _Problem(detail=f"{response.request.url} answered with status {response.status_code}.")


def _read(response: httpx.Response, shape: type[Shape]) -> Shape:
    _check(response)
    try:
        return shape.model_validate_json(response.content)
    except ValidationError as error:
        raise Failed(f"What {response.request.url} answered is not from this agent service.") from error


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes 20 ms: made once, not for every call
