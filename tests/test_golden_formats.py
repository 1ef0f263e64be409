"""What leaves of a few spans in each format, byte by byte: `tests/golden/formats.txt`.

A change here is a change of what Langfuse and others show, or of what they cost.
`GOLDEN=write python -m pytest tests/test_golden_formats.py` writes it anew.
"""

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare
from telemetry.messages_json import MessagesJson, under_messages
from telemetry.settings import Settings
from tests.telemetry.planted import CONTEXT, finished, with_changes

GOLDEN = Path(__file__).parent / "golden" / "formats.txt"
SHAPES = ("langfuse", "openinference", "genai", "all")
PARENT = SpanContext(CONTEXT.trace_id, 7, is_remote=False, trace_flags=TraceFlags(1))
TURN: dict[str, Any] = {
    "session.id": "t-1",
    "user.id": "ada",
    "langfuse.trace.name": "clerk",
    "langfuse.trace.tags": ["clerk", "vip"],
    "langfuse.trace.metadata.agent": "clerk",
    "langfuse.trace.metadata.thread": "t-1",
    "langfuse.trace.metadata.run": "r-1",
}
NODE = {"metadata": '{"thread_id":"t-1","langgraph_step":1,"langgraph_node":"model","ls_integration":"langgraph"}'}
QUESTION = '{"role":"user","content":"What is 12*34?"}'
CALL = json.dumps(
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c-1", "type": "function", "function": {"name": "calculator", "arguments": '{"expression":"12*34"}'}}
        ],
    }
)
TOOL = json.dumps(
    {"type": "function", "function": {"name": "calculator", "description": "Calculate.", "parameters": {}}}
)
MODEL: dict[str, Any] = {
    "llm.model_name": "demo",
    "llm.provider": "openai",
    "llm.invocation_parameters": '{"model":"demo","temperature":0,"tool_choice":"auto","_type":"demo","stop":null}',
    "llm.tools.0.tool.json_schema": TOOL,
    "llm.token_count.prompt": 21,
    "llm.token_count.completion": 5,
    "llm.token_count.total": 26,
    "llm.token_count.prompt_details.cache_read": 4,
    "llm.cost.total": 0.5,
    "llm.finish_reason": "tool_calls",
    "langfuse.observation.completion_start_time": "1970-01-01T00:00:00.000000+00:00",
    "gen_ai.response.id": "r-9",
}


def spans() -> list[ReadableSpan]:
    """A turn, as the service and the recorders leave it."""

    def made(
        name: str, kind: str, attributes: dict[str, Any], status: Status | None = None, events: Sequence[Event] = ()
    ) -> ReadableSpan:
        given = {"openinference.span.kind": kind, **TURN, **attributes}
        scope = InstrumentationScope("telemetry" if name == "turn" else "telemetry.recorder")
        return finished(name, status, attributes=given, parent=PARENT, events=events, instrumentation_scope=scope)

    about = {"exception.type": "lib.OddError", "exception.message": "it broke", "exception.stacktrace": "s"}
    dumped = {"generations": [[{"message": {"id": ["AIMessage"], "kwargs": json.loads(CALL)}}]]}
    return [
        with_changes(
            finished("POST /{agent}", kind=SpanKind.SERVER),
            attributes={**TURN, "http.route": "/{agent}", "input.value": "What is 12*34?", "output.value": "408"},
        ),
        made(
            "turn",
            "AGENT",
            {"input.value": "What is 12*34?", "output.value": "408", "telemetry.shown_on_root": ["input", "output"]},
        ),
        made("model", "CHAIN", {**NODE, "input.value": MessagesJson(under_messages(["[", QUESTION, "]"]))}),
        made(
            "Model",
            "LLM",
            {
                **NODE,
                **MODEL,
                "input.value": MessagesJson(["[", QUESTION, "]"]),
                "output.value": MessagesJson([CALL]),
            },
        ),
        made("Model", "LLM", {**MODEL, "input.value": f"[{QUESTION}]", "output.value": json.dumps(dumped)}),
        made(
            "calculator",
            "TOOL",
            {
                **NODE,
                "input.value": '{"expression":"12*34"}',
                "output.value": '{"type":"tool","content":"408","tool_call_id":"c-1","status":"success"}',
                "tool.name": "calculator",
                "tool.description": "Calculate.",
            },
        ),
        made(
            "Retriever",
            "RETRIEVER",
            {"input.value": "sampling", "output.value": "{}", "retrieval.documents.0.document.content": "Some."},
        ),
        made("model", "CHAIN", {}, Status(StatusCode.ERROR, "OddError: it broke"), [Event("exception", about, 1)]),
    ]


def written() -> str:
    """The attributes of each span in each format in their order, and a hash of its bytes."""
    lines: list[str] = []
    for shape in SHAPES:
        stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape}))
        for span in spans():
            body = prepare(span, stages)
            (arrived,) = otlp.decode(body, "application/x-protobuf")
            lines.append(f"{shape}: {arrived.name} {len(body)} bytes, sha256 {sha256(body).hexdigest()[:16]}")
            lines += [f"  {key} = {json.dumps(value)}" for key, value in arrived.attributes.items()]
    return "\n".join([*lines, ""])


def test_each_format_is_what_it_was() -> None:
    """No byte changes of what is sent to Langfuse or to anybody else, unless the file says so."""
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(written())
    assert written() == GOLDEN.read_text()
