"""A model on loopback that gives scripted answers, in the words of OpenAI, Anthropic and Google."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
INPUT_TOKENS, OUTPUT_TOKENS = 11, 7


@dataclass(frozen=True)
class Say:
    """The model answers in words, perhaps after it has thought about them."""

    text: str
    thought: str = ""


@dataclass(frozen=True)
class Call:
    """The model calls a tool."""

    name: str
    arguments: Json


Reply = Say | Call


@dataclass
class Models:
    """A running server: its address, what it has been asked, and what it still has to answer."""

    replies: list[Reply]
    url: str = ""
    asked: list[Json] = field(default_factory=list)


@contextmanager
def model_server(replies: Sequence[Reply]) -> Iterator[Models]:
    """Serve these replies, one a request, until the block is left."""
    models = Models(list(replies))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                models.asked.append(asked)
                reply = models.replies.pop(0) if models.replies else None
            if reply is None:
                self.send_error(500, "nothing more to say")
                return
            is_streamed = bool(asked.get("stream")) or "streamGenerateContent" in self.path
            kind = "text/event-stream" if is_streamed else "application/json"
            body = _answer(self.path, asked, reply, len(models.asked), is_streamed=is_streamed).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    models.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield models
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(path: str, asked: Json, reply: Reply, count: int, *, is_streamed: bool) -> str:
    model = asked.get("model", "gemini")
    if path.endswith("/chat/completions"):
        whole, events = _chat(model, reply, count)
    elif path.endswith("/responses"):
        whole, events = _response(model, reply, count, asked.get("instructions"))
    elif path.endswith("/messages"):
        whole, events = _anthropic(model, reply, count)
    else:
        whole, events = _gemini(reply)
    if not is_streamed:
        return json.dumps(whole)
    return "".join(map(_event, events)) + ("data: [DONE]\n\n" if path.endswith("/chat/completions") else "")


def _event(event: Json) -> str:
    head = f"event: {event['type']}\n" if "type" in event else ""
    return f"{head}data: {json.dumps(event)}\n\n"


def _chat(model: str, reply: Reply, count: int) -> tuple[Json, list[Json]]:
    head = {"id": f"chatcmpl-{count}", "created": 0, "model": model}
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    said: Json
    if isinstance(reply, Call):
        function = {"name": reply.name, "arguments": json.dumps(reply.arguments)}
        said = {"content": None, "tool_calls": [{"id": f"call_{count}", "type": "function", "function": function}]}
        delta = {"tool_calls": [{"index": 0, **said["tool_calls"][0]}]}
    else:
        said = {"content": reply.text, **({"reasoning_content": reply.thought} if reply.thought else {})}
        delta = said
    reason = "tool_calls" if isinstance(reply, Call) else "stop"
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason}
    chunk = {**head, "object": "chat.completion.chunk"}
    events = [
        {**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}]},
        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        {**chunk, "choices": [], "usage": usage},
    ]
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}, events


def _response(model: str, reply: Reply, count: int, instructions: str | None) -> tuple[Json, list[Json]]:
    output: list[Json] = []
    if isinstance(reply, Call):
        arguments = json.dumps(reply.arguments)
        call = {"type": "function_call", "id": f"fc_{count}", "call_id": f"call_{count}", "status": "completed"}
        output.append({**call, "name": reply.name, "arguments": arguments})
    else:
        if reply.thought:
            summary = [{"type": "summary_text", "text": reply.thought}]
            output.append({"type": "reasoning", "id": f"rs_{count}", "summary": summary})
        text = {"type": "output_text", "text": reply.text, "annotations": []}
        message = {"type": "message", "id": f"msg_{count}", "role": "assistant", "status": "completed"}
        output.append({**message, "content": [text]})
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    whole = {
        "id": f"resp_{count}",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "instructions": instructions,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    events: list[Json] = [{"type": "response.created", "response": {**whole, "output": [], "status": "in_progress"}}]
    for at, item in enumerate(output):
        events.append({"type": "response.output_item.added", "output_index": at, "item": {**item, "content": []}})
        if item["type"] == "message":
            place = {"output_index": at, "content_index": 0, "item_id": item["id"]}
            events += [
                {"type": "response.content_part.added", **place, "part": {**item["content"][0], "text": ""}},
                {"type": "response.output_text.delta", **place, "delta": item["content"][0]["text"], "logprobs": []},
                {"type": "response.content_part.done", **place, "part": item["content"][0]},
            ]
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return whole, [{**event, "sequence_number": at} for at, event in enumerate(events)]


def _anthropic(model: str, reply: Reply, count: int) -> tuple[Json, list[Json]]:
    content: list[Json] = []
    if isinstance(reply, Call):
        content.append({"type": "tool_use", "id": f"toolu_{count}", "name": reply.name, "input": reply.arguments})
    else:
        if reply.thought:
            content.append({"type": "thinking", "thinking": reply.thought, "signature": "c2lnbmVk"})
        content.append({"type": "text", "text": reply.text})
    reason = "tool_use" if isinstance(reply, Call) else "end_turn"
    head = {"id": f"msg_{count}", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    whole = {**head, "content": content, "stop_reason": reason, "usage": usage}
    started = {**head, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": started}]
    for at, block in enumerate(content):
        empty, *deltas = _anthropic_block(block)
        events.append({"type": "content_block_start", "index": at, "content_block": empty})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    ended = {"stop_reason": reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": OUTPUT_TOKENS}})
    return whole, [*events, {"type": "message_stop"}]


def _anthropic_block(block: Json) -> list[Json]:
    if block["type"] == "text":
        half = len(block["text"]) // 2
        halves = block["text"][:half], block["text"][half:]
        return [{**block, "text": ""}, *({"type": "text_delta", "text": part} for part in halves)]
    if block["type"] == "thinking":
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return [{**block, "thinking": "", "signature": ""}, thought, signed]
    return [{**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]


def _gemini(reply: Reply) -> tuple[Json, list[Json]]:
    part: Json
    if isinstance(reply, Call):
        part = {"functionCall": {"name": reply.name, "args": reply.arguments}}
    else:
        part = {"text": reply.text}
    usage = {
        "promptTokenCount": INPUT_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS,
        "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    whole = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini", "responseId": "r"}
    return whole, [whole]
