"""A loopback server that speaks OpenAI's chat completions, with the demo model's words."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages

from app.models.demo_model import DemoModel
from tests.processes import serve

FRAGMENT = 5  # characters of a call's arguments in one chunk
CLOSE = {"Connection": "close"}  # langchain-openai shares connections, each test has its own event loop


class Refusal(Exception):  # noqa: N818 — an answer, not a mistake of this program
    """What OpenAI answers to a request it does not take."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


@dataclass
class Received:
    """One request as it came."""

    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class OpenAIServer:
    """A running server: where it is, what it has been asked, what it refuses."""

    key: str = "sk-loopback"
    knows_stream_options: bool = True
    refusal_status: int = 400
    url: str = ""
    received: list[Received] = field(default_factory=list)

    def check(self, request: Received) -> None:
        """Raises the refusal that OpenAI would answer."""
        if request.headers.get("authorization") != f"Bearer {self.key}":
            raise Refusal(401, "Incorrect API key provided.")
        if "stream_options" in request.body and not self.knows_stream_options:
            raise Refusal(
                self.refusal_status, "Unrecognized request argument supplied: stream_options", "stream_options"
            )
        check_tool_calls(request.body["messages"])


@contextmanager
def openai_server(*, knows_stream_options: bool = True, refusal_status: int = 400) -> Iterator[OpenAIServer]:
    """A server that answers at `url` until the block is left."""
    server = OpenAIServer(knows_stream_options=knows_stream_options, refusal_status=refusal_status)
    with serve(application(server)) as address:
        server.url = f"{address}/v1"
        yield server


def application(server: OpenAIServer) -> FastAPI:
    """The HTTP side of the server."""
    app = FastAPI()

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body, refusal.status, CLOSE)

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(request: Request) -> JSONResponse | StreamingResponse:
        received = Received(dict(request.headers), await request.json())
        server.received.append(received)
        server.check(received)
        if received.body.get("stream"):
            return StreamingResponse(events(received.body), 200, CLOSE, "text/event-stream")
        return JSONResponse(await completion(received.body), 200, CLOSE)

    return app


def check_tool_calls(messages: list[dict[str, Any]]) -> None:
    """Raises a refusal unless every tool call is answered at once, and every answer was asked for."""
    open_calls: list[str] = []
    for message in [*messages, {"role": "end"}]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Refusal(400, "Messages with role 'tool' must follow a message with 'tool_calls'.")
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            raise Refusal(
                400,
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. These did not have response messages: {', '.join(open_calls)}",
                "messages",
            )
        open_calls += [call["id"] for call in message.get("tool_calls") or ()]


def ask(body: dict[str, Any]) -> tuple[DemoModel, list[BaseMessage], dict[str, Any]]:
    """The model, and what it is asked."""
    return DemoModel(), convert_to_messages(body["messages"]), {"tools": body.get("tools", [])}


async def completion(body: dict[str, Any]) -> dict[str, Any]:
    """The whole answer at once."""
    model, messages, options = ask(body)
    answer = await model.ainvoke(messages, **options)
    choice = {"index": 0, "message": in_openai_shape(answer), "finish_reason": reason(answer)}
    return envelope("chat.completion", body, choices=[choice], usage=usage(answer))


async def events(body: dict[str, Any]) -> AsyncIterator[str]:
    """The answer as server-sent events, usage last where it was asked for."""
    model, messages, options = ask(body)
    asked_for_usage = (body.get("stream_options") or {}).get("include_usage")
    async for chunk in model.astream(messages, **options):
        for delta in deltas(chunk):
            yield event(body, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        if chunk.chunk_position == "last":
            yield event(body, choices=[{"index": 0, "delta": {}, "finish_reason": reason(chunk)}])
            if asked_for_usage:
                yield event(body, choices=[], usage=usage(chunk))
    yield "data: [DONE]\n\n"


def deltas(chunk: AIMessageChunk) -> Iterator[dict[str, Any]]:
    """The pieces that OpenAI would send for this much of an answer."""
    if chunk.text:
        yield {"role": "assistant", "content": chunk.text}
    for index, call in enumerate(chunk.tool_calls):
        head = {"index": index, "id": call["id"], "type": "function"}
        yield {"tool_calls": [{**head, "function": {"name": call["name"], "arguments": ""}}]}
        arguments = json.dumps(call["args"])
        for start in range(0, len(arguments), FRAGMENT):
            fragment = arguments[start : start + FRAGMENT]
            yield {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}


def in_openai_shape(answer: AIMessage) -> dict[str, Any]:
    """The message as OpenAI sends it."""
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["args"])},
        }
        for call in answer.tool_calls
    ]
    return {"role": "assistant", "content": answer.text or None, **({"tool_calls": calls} if calls else {})}


def reason(answer: AIMessage) -> str:
    """Why the model stopped."""
    return answer.response_metadata["finish_reason"]


def usage(answer: AIMessage) -> dict[str, int]:
    """The usage under OpenAI's names."""
    counted = answer.usage_metadata
    assert counted
    return {
        "prompt_tokens": counted["input_tokens"],
        "completion_tokens": counted["output_tokens"],
        "total_tokens": counted["total_tokens"],
    }


def event(body: dict[str, Any], **fields: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(envelope('chat.completion.chunk', body, **fields))}\n\n"


def envelope(kind: str, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What stands around every answer."""
    return {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "object": kind,
        "created": 0,
        "model": body["model"],
        **fields,
    }
