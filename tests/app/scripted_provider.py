"""A loopback server that speaks OpenAI's chat completions from a script, and is as strict as the strictest provider."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tests.openai_server import CLOSE, check_tool_calls
from tests.openai_server import Refusal as ProviderRefusal
from tests.processes import serve


def text(content: str, reason: str = "stop", **delta: Any) -> dict[str, Any]:
    """An answer in words."""
    return {"delta": {"role": "assistant", "content": content, **delta}, "finish_reason": reason}


def call(arguments: str, call_id: str | None = "tool:0", name: str = "calculator") -> dict[str, Any]:
    """An answer that calls a tool with these arguments, as they are."""
    function = {"name": name, "arguments": arguments}
    calls = [{"index": 0, "id": call_id, "type": "function", "function": function}]
    return {"delta": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}


@dataclass
class Provider:
    """A running server: what it will answer, and what it was asked."""

    script: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The next answer of the script; a number is a status to fail with."""
        self.requests.append(body)
        check_tool_calls(body["messages"])
        check_roles([message["role"] for message in body["messages"]])
        check_arguments(body["messages"])
        answer = self.script.pop(0)
        if isinstance(answer, int):
            raise ProviderRefusal(answer, "as the script says")
        return answer


def check_roles(roles: Sequence[str]) -> None:
    """Refuse a user's message after another one, or after a tool's, as Mistral and many chat templates do."""
    for before, role in pairwise(roles):
        if role == "user" and before in ("user", "tool"):
            raise ProviderRefusal(400, f"Unexpected role 'user' after role '{before}'")


def check_arguments(messages: Sequence[dict[str, Any]]) -> None:
    """Refuse calls in the history whose arguments are no JSON object, as servers do that parse them."""
    for message in messages:
        for made in message.get("tool_calls") or ():
            try:
                arguments = json.loads(made["function"]["arguments"])
            except ValueError:
                arguments = None
            if not isinstance(arguments, dict):
                raise ProviderRefusal(400, "arguments: not a JSON object")


@contextmanager
def scripted_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A provider that the models `openai:…` of this process talk to."""
    provider, app = Provider(), FastAPI()

    @app.exception_handler(ProviderRefusal)
    async def refuse(_: Request, refusal: ProviderRefusal) -> JSONResponse:
        later = {"retry-after": "1"} if refusal.status == 429 else {}
        return JSONResponse(refusal.body, refusal.status, CLOSE | later)

    @app.post("/v1/chat/completions", response_model=None)
    async def complete(request: Request) -> StreamingResponse:
        body = await request.json()
        return StreamingResponse(chunks(body["model"], provider.answer(body)), 200, CLOSE, "text/event-stream")

    with serve(app) as url:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        yield provider


async def chunks(model: str, answer: dict[str, Any]) -> AsyncIterator[str]:
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": model}
    deltas = [{"role": "assistant", "content": piece} for piece in answer.get("pieces", ())] or [answer["delta"]]
    for choice in (
        *({"index": 0, "delta": delta, "finish_reason": None} for delta in deltas),
        {"index": 0, "delta": {}, "finish_reason": answer["finish_reason"]},
    ):
        yield f"data: {json.dumps({**envelope, 'choices': [choice]})}\n\n"
        if answer.get("breaks_off"):
            raise ConnectionAbortedError("as the script says")
    yield "data: [DONE]\n\n"
