"""Langfuse's published rules, applied to spans as they arrive: what it would show, and what is wrong with it.

There is no trace record: a trace is what its spans say together. Its input and output are those of the span without a
parent. Filters work span by span.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from telemetry.export.otlp import Span

MISREAD = {"model", "input", "output", "prompt", "events"}
# A trace's input and output are its root's: these say nothing to anybody.
UNREAD = {"langfuse.trace.input", "langfuse.trace.output"}
ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9-_]{1,40}")
FILTERABLE = {
    "langfuse.trace.metadata.": {"agent", "thread", "run", "resumes", "resumes_trace"},
    "langfuse.observation.metadata.": {
        "langgraph_node",
        "langgraph_step",
        "messages",
        "finish_reason",
        "prompt_source",
        "tool_call_id",
        "bytes",
        "success",
        "waited_s",
    },
}
USAGE = {
    "input": ("llm.token_count.prompt", "gen_ai.usage.input_tokens"),
    "output": ("llm.token_count.completion", "gen_ai.usage.output_tokens"),
    "input_cached_tokens": (
        "llm.token_count.prompt_details.cache_read",
        "gen_ai.usage.cache_read.input_tokens",
    ),
    "output_reasoning_tokens": (
        "llm.token_count.completion_details.reasoning",
        "gen_ai.usage.reasoning.output_tokens",
    ),
}
# The first of these pairs that a span has something of is its input and its output; Langfuse's own may be empty.
OWN_CONTENT = ("langfuse.observation.input", "langfuse.observation.output")
CONTENT = (
    ("input.value", "output.value"),
    ("llm.input_messages.0.message.role", "llm.output_messages.0.message.role"),
    ("gen_ai.input.messages", "gen_ai.output.messages"),
    ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
)
MODELS = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
ROLES = {"system", "developer", "user", "assistant", "tool"}
LOCAL = re.compile(r"/(?:site-packages|home|root|tmp|work|usr|opt)/|Traceback|\.py\b")


@dataclass(frozen=True)
class Observation:
    """One span as Langfuse reads it."""

    span: Span

    @property
    def type(self) -> str:
        said = self._first("langfuse.observation.type", "openinference.span.kind") or "span"
        return {"llm": "generation"}.get(str(said).lower(), str(said).lower())

    @property
    def title(self) -> str:
        """What the observation is called, and its trace's page where it is the root."""
        return str(self._first("logfire.msg") or self.span.name)

    @property
    def cost(self) -> dict[str, float]:
        """Dollars by kind of tokens, as they were sent."""
        return _read(self._first("langfuse.observation.cost_details")) or {}

    @property
    def input(self) -> Any:
        return _read(self._content[0])

    @property
    def output(self) -> Any:
        return _read(self._content[1])

    @property
    def _content(self) -> tuple[Any, Any]:
        found = [tuple(map(self.span.attributes.get, pair)) for pair in (OWN_CONTENT, *CONTENT)]
        if any(each is not None for each in found[0]):
            found = found[:1]
        before, after = next((pair for pair in found if any(pair)), (None, None))
        return before or None, after or None

    @property
    def model(self) -> str | None:
        return self._first(*MODELS)

    @property
    def parameters(self) -> Any:
        return _read(self._first("llm.invocation_parameters"))

    @property
    def level(self) -> str:
        said = self._first("langfuse.observation.level")
        return str(said) if said else "ERROR" if self.span.status == "ERROR" else "DEFAULT"

    @property
    def message(self) -> str:
        return str(self._first("langfuse.observation.status_message") or self.span.message)

    @property
    def usage(self) -> dict[str, int]:
        if sent := _read(self._first("langfuse.observation.usage_details")):
            return {name: count for name, count in sent.items() if name != "total"}
        said = self.span.attributes
        found = {name: next((said[key] for key in keys if key in said), None) for name, keys in USAGE.items()}
        return {name: count for name, count in found.items() if count is not None}

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        said = self.output if isinstance(self.output, list) else [self.output]
        return [call for each in said if isinstance(each, dict) for call in each.get("tool_calls", [])]

    def view(self) -> dict[str, Any]:
        """All that a person sees of it."""
        fields = ("type", "title", "cost", "input", "output", "level", "message", "usage", "model", "parameters")
        found = {"session.id", "user.id", "langfuse.trace.name", "langfuse.trace.tags"}
        found |= {key for key in self.span.attributes if key.startswith(tuple(FILTERABLE))}
        return {name: getattr(self, name) for name in fields} | {key: self.span.attributes.get(key) for key in found}

    def _first(self, *names: str) -> Any:
        return next((self.span.attributes[name] for name in names if self.span.attributes.get(name)), None)


@dataclass(frozen=True)
class Trace:
    """All that Langfuse knows of one trace."""

    observations: Sequence[Observation]

    @property
    def root(self) -> Observation | None:
        return next((each for each in self.observations if each.span.parent_id is None), None)

    @property
    def name(self) -> str:
        named = [each.span.attributes.get("langfuse.trace.name") for each in self.observations]
        return next((name for name in reversed(named) if name), self.root.span.name if self.root else "")

    def of(self, kind: str) -> list[Observation]:
        return [each for each in self.observations if each.type == kind]

    def named(self, name: str) -> list[Observation]:
        return [each for each in self.observations if each.span.name == name]


def traces(spans: Iterable[Span]) -> list[Trace]:
    """The traces that these spans make, in the order of their start."""
    grouped: dict[str, list[Observation]] = {}
    for span in sorted(spans, key=lambda span: span.start):
        grouped.setdefault(span.trace_id, []).append(Observation(span))
    return [Trace(observations) for observations in grouped.values()]


def violations(trace: Trace, *, answered: bool = True) -> list[str]:
    """What a person would miss in Langfuse; `answered` says whether the turn came to an answer."""
    return [*_of_trace(trace, answered), *(wrong for each in trace.observations for wrong in _of_span(each))]


def _of_trace(trace: Trace, answered: bool) -> Iterator[str]:
    if not trace.name:
        yield "the trace has no name"
    if trace.root is None:
        yield "the trace has no root"
    elif not trace.root.input or (answered and not trace.root.output):
        yield "the trace has no input or no output"
    for key in ("session.id", "user.id", "langfuse.trace.name", "langfuse.trace.tags"):
        said = {str(each.span.attributes.get(key)) for each in trace.observations}
        if len(said) > 1 or "None" in said:
            yield f"{key} is not the same on every span: {said}"


def _of_span(each: Observation) -> Iterator[str]:
    name, attributes = each.span.name, each.span.attributes
    yield from (f"{name}: {key} is misread" for key in MISREAD & attributes.keys())
    yield from (f"{name}: {key} is not read" for key in UNREAD & attributes.keys())
    environment = str(each.span.resource.get("deployment.environment.name", "default"))
    if not ENVIRONMENT.fullmatch(environment):
        yield f"{name}: {environment} would be filed under default"
    yield from (f"{name}: {key} is no JSON" for key, value in attributes.items() if not _parses(value))
    for prefix, listed in FILTERABLE.items():
        unlisted = {key for key in attributes if key.startswith(prefix) and key.removeprefix(prefix) not in listed}
        yield from (f"{name}: {key} is not listed" for key in unlisted)
    if each.level not in ("DEBUG", "DEFAULT", "WARNING", "ERROR"):
        yield f"{name}: {each.level} is no level"
    if each.level == "ERROR" and not _is_a_line(each.message):
        yield f"{name}: the message is no line for people: {each.message!r}"
    if each.type == "generation":
        yield from (f"{name}: {wrong}" for wrong in _of_generation(each))
    if each.type == "tool":
        yield from (f"{name}: {wrong}" for wrong in _of_tool(each))


def _of_generation(each: Observation) -> Iterator[str]:
    attributes = each.span.attributes
    if not attributes.get("llm.model_name"):
        yield "a generation without a model"
    asked = each.input.get("messages") if isinstance(each.input, dict) else each.input
    if not isinstance(asked, list) or not asked:
        yield f"the input is no chat: {each.input!r}"
    else:
        yield from (wrong for message in asked for wrong in _of_message(message))
    if each.output is None:
        return
    yield from _of_message(each.output)
    if not each.usage and each.level == "DEFAULT":
        yield "a generation without usage"
    started = str(attributes.get("langfuse.observation.completion_start_time"))
    if not _is_between(started, each.span):
        yield f"the first token came at {started}"


def _of_message(message: Any) -> Iterator[str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES or "content" not in message:
        yield f"no message of a chat: {message!r}"
        return
    if message["role"] == "tool" and not message.get("tool_call_id"):
        yield "a tool's message answers no call"
    for call in message.get("tool_calls", []):
        function = call.get("function", {})
        if call.get("type") != "function" or not call.get("id") or not function.get("name"):
            yield f"no tool call: {call!r}"
        elif not isinstance(_read(function.get("arguments")), dict):
            yield f"the arguments are no object: {function!r}"


def _of_tool(each: Observation) -> Iterator[str]:
    attributes = each.span.attributes
    if not attributes.get("tool.name") or each.input is None:
        yield "a tool without name or arguments"
    if each.output is not None and "langfuse.observation.metadata.bytes" not in attributes:
        yield "a result without its size"


def _is_a_line(text: str) -> bool:
    return bool(text) and len(text) <= 500 and "\n" not in text and not LOCAL.search(text)


def _is_between(moment: str, span: Span) -> bool:
    try:
        at = datetime.fromisoformat(moment).timestamp() * 1e9
    except ValueError:
        return False
    return span.start - 1e6 <= at <= span.end + 1e6


def _parses(value: Any) -> bool:
    if not isinstance(value, str) or value[:2] not in ('{"', "[{", '["', "[["):
        return True
    try:
        json.loads(value, parse_constant=lambda name: json.loads(f"no {name}"))
    except ValueError:
        return False
    return True


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
