"""A span as Langfuse reads it: the same attributes win, in the same order."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from telemetry.otlp import Attributes, Span

LEVELS = ("DEBUG", "DEFAULT", "WARNING", "ERROR")
TYPES = {
    "SPAN",
    "GENERATION",
    "EVENT",
    "AGENT",
    "TOOL",
    "CHAIN",
    "RETRIEVER",
    "EVALUATOR",
    "EMBEDDING",
    "GUARDRAIL",
}
OPERATIONS = {
    "chat": "GENERATION",
    "completion": "GENERATION",
    "text_completion": "GENERATION",
    "generate_content": "GENERATION",
    "embeddings": "EMBEDDING",
    "invoke_agent": "AGENT",
    "create_agent": "AGENT",
    "execute_tool": "TOOL",
}
MODELS = (
    "langfuse.observation.model.name",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.model_name",
    "model",
)
USAGE = {
    "input": ("llm.token_count.prompt", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output": ("llm.token_count.completion", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "total": ("llm.token_count.total", "gen_ai.usage.total_tokens"),
    "input_cached_tokens": (
        "llm.token_count.prompt_details.cache_read",
        "gen_ai.usage.cache_read.input_tokens",
    ),
    "output_reasoning_tokens": (
        "llm.token_count.completion_details.reasoning",
        "gen_ai.usage.reasoning.output_tokens",
    ),
}
MOST_TOKENS = 10**12
METADATA = ("langfuse.trace.metadata.", "langfuse.observation.metadata.")


@dataclass(frozen=True)
class Observation:
    """One span with the fields that Langfuse makes of it."""

    span: Span

    @property
    def id(self) -> str:
        """The span id."""
        return self.span.span_id

    @property
    def attributes(self) -> Attributes:
        """The span's attributes as they came."""
        return self.span.attributes

    @property
    def latency(self) -> float:
        """Seconds from start to end, never negative."""
        return max(self.span.end - self.span.start, 0) / 1e9

    @cached_property
    def type(self) -> str:
        """GENERATION, TOOL, AGENT and so on; SPAN where nothing says more."""
        said = str(self._first("langfuse.observation.type") or "").upper()
        kind = str(self._first("openinference.span.kind") or "").upper()
        kind = {"LLM": "GENERATION"}.get(kind, kind)
        operation = OPERATIONS.get(str(self._first("gen_ai.operation.name")), "")
        guessed = "GENERATION" if self.model else "SPAN"
        return next(found for found in (said, kind, operation, guessed) if found in TYPES)

    @cached_property
    def level(self) -> str:
        """DEBUG, DEFAULT, WARNING or ERROR."""
        said = str(self._first("langfuse.observation.level") or "").upper()
        if said in LEVELS:
            return said
        return "ERROR" if self.span.status == "ERROR" else "DEFAULT"

    @property
    def message(self) -> str:
        """What went wrong, if anything did."""
        return text(self._first("langfuse.observation.status_message") or self.span.message)

    @property
    def input(self) -> Any:
        """What went in, as it came."""
        return self._first("langfuse.observation.input", "input.value", "gen_ai.input.messages", "input", "prompt")

    @property
    def output(self) -> Any:
        """What came out, as it came."""
        return self._first("langfuse.observation.output", "output.value", "gen_ai.output.messages", "output")

    @cached_property
    def model(self) -> str | None:
        """The model's name, if the span names one."""
        name = self._first(*MODELS)
        return text(name) if name is not None else None

    @property
    def model_parameters(self) -> Any:
        """The parameters that the model was called with."""
        return parsed(self._first("langfuse.observation.model.parameters", "llm.invocation_parameters"))

    @cached_property
    def usage(self) -> dict[str, int]:
        """Tokens by kind; cached and reasoning tokens are not counted again as input and output."""
        said = parsed(self._first("langfuse.observation.usage_details"))
        if isinstance(said, dict):
            return {str(name): count for name, value in said.items() if (count := _count(value)) is not None}
        counts = {name: _count(self._first(*names)) for name, names in USAGE.items()}
        usage = {name: count for name, count in counts.items() if count is not None}
        _take(usage, "input", usage.get("input_cached_tokens", 0))
        _take(usage, "output", usage.get("output_reasoning_tokens", 0))
        return usage

    @property
    def tokens(self) -> int:
        """All tokens of this span."""
        return self.usage.get("total") or sum(self.usage.values())

    @cached_property
    def completion_start(self) -> datetime | None:
        """When the first token came."""
        said = parsed(self._first("langfuse.observation.completion_start_time"))
        try:
            return datetime.fromisoformat(said).astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            return None

    @property
    def first_token(self) -> float | None:
        """Seconds from the start to the first token."""
        if self.completion_start is None:
            return None
        return max(self.completion_start.timestamp() - self.span.start / 1e9, 0.0)

    @property
    def trace_name(self) -> str | None:
        """The name that this span gives its trace."""
        return self._text("langfuse.trace.name")

    @property
    def session_id(self) -> str | None:
        """The conversation that this span belongs to."""
        return self._text("session.id", "langfuse.session.id")

    @property
    def user_id(self) -> str | None:
        """The user whom this span was made for."""
        return self._text("user.id", "langfuse.user.id")

    @cached_property
    def tags(self) -> list[str]:
        """The tags that this span gives its trace."""
        said = parsed(self._first("langfuse.trace.tags", "tag.tags"))
        if isinstance(said, list):
            return [text(tag) for tag in said]
        return [text(said)] if said else []

    @property
    def environment(self) -> str:
        """The environment, from the span or its resource."""
        named = self._text("langfuse.environment")
        resource = self.span.resource
        return named or text(
            resource.get("deployment.environment.name") or resource.get("deployment.environment") or "default"
        )

    @property
    def version(self) -> str | None:
        """The version of what made the span."""
        return self._text("langfuse.version") or _text_or_none(self.span.resource.get("service.version"))

    @property
    def release(self) -> str | None:
        """The release of what made the span."""
        return self._text("langfuse.release") or _text_or_none(self.span.resource.get("langfuse.release"))

    @property
    def metadata(self) -> dict[str, Any]:
        """The filterable metadata on top, everything else of the span below `attributes`."""
        found = {
            name.removeprefix(prefix): parsed(value)
            for prefix in METADATA
            for name, value in self.attributes.items()
            if name.startswith(prefix)
        }
        rest = {name: value for name, value in self.attributes.items() if not name.startswith(METADATA)}
        scope = {"name": self.span.scope}
        return found | {"attributes": rest, "resourceAttributes": self.span.resource, "scope": scope}

    def _first(self, *names: str) -> Any:
        return next((self.attributes[name] for name in names if self.attributes.get(name) not in (None, "")), None)

    def _text(self, *names: str) -> str | None:
        return _text_or_none(self._first(*names))


@dataclass(frozen=True)
class Trace:
    """A trace as its observations tell it: there is no record of its own."""

    id: str
    observations: Sequence[Observation] = field(repr=False)

    @cached_property
    def root(self) -> Observation | None:
        """The span without a parent, if it has come."""
        return next((each for each in self.observations if each.span.parent_id is None), None)

    @cached_property
    def name(self) -> str:
        """Any span's trace name, else the root's name, else nothing."""
        return _last(each.trace_name for each in self.observations) or (self.root.span.name if self.root else "")

    @property
    def session_id(self) -> str | None:
        """The last session that any span names."""
        return _last(each.session_id for each in self.observations)

    @property
    def user_id(self) -> str | None:
        """The last user that any span names."""
        return _last(each.user_id for each in self.observations)

    @property
    def tags(self) -> list[str]:
        """The last tags that any span gives."""
        return _last(each.tags for each in self.observations) or []

    @property
    def start(self) -> int:
        """When its first span began."""
        return min(each.span.start for each in self.observations)

    @property
    def end(self) -> int:
        """When its last span ended."""
        return max(each.span.end for each in self.observations)

    @property
    def latency(self) -> float:
        """Seconds from the first start to the last end."""
        return max(self.end - self.start, 0) / 1e9

    @property
    def tokens(self) -> int:
        """All tokens of all its spans."""
        return sum(each.tokens for each in self.observations)

    @property
    def errors(self) -> int:
        """How many spans failed."""
        return sum(each.level == "ERROR" for each in self.observations)


def text(value: Any) -> str:
    """Return a value as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def parsed(value: Any) -> Any:
    """Return what a string says in JSON, and everything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except ValueError:
        return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else text(value)


def _last(values: Iterable[Any]) -> Any:
    return next((value for value in reversed(list(values)) if value), None)


def _count(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if 0 <= number <= MOST_TOKENS else None


def _take(usage: dict[str, int], name: str, part: int) -> None:
    if name in usage:
        usage[name] = max(usage[name] - part, 0)
