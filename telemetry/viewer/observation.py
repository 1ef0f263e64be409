"""A span as Langfuse reads it: the same attributes take precedence, in the same order."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from pydantic_core import from_json

from telemetry.export.otlp import Attributes, Span
from telemetry.viewer.prices import Cost, Prices

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
    "input_cache_creation": (
        "llm.token_count.prompt_details.cache_write",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_write.input_tokens",
    ),
    "output_reasoning_tokens": (
        "llm.token_count.completion_details.reasoning",
        "gen_ai.usage.reasoning.output_tokens",
    ),
    "output_audio_tokens": ("llm.token_count.completion_details.audio",),
}
# The kinds of tokens that the counts of input and output contain, and that are counted by themselves.
DETAILS = {
    "input": ("input_cached_tokens", "input_cache_creation"),
    "output": ("output_reasoning_tokens", "output_audio_tokens"),
}
OPENAI_USAGE = {"prompt_tokens": "input", "completion_tokens": "output", "total_tokens": "total"}
MOST_TOKENS = 10**12
COSTS = {"input": "llm.cost.prompt", "output": "llm.cost.completion", "total": "llm.cost.total"}
MOST_COST = 10**9
MOST_SECONDS = 10**9
METADATA = ("langfuse.trace.metadata.", "langfuse.observation.metadata.")
OWN_CONTENT = ("langfuse.observation.input", "langfuse.observation.output")
INPUTS = (
    "input.value",
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "gen_ai.retrieval.query.text",
    "input",
    "prompt",
)
OUTPUTS = (
    "output.value",
    "gen_ai.output.messages",
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.documents",
    "output",
)
PARAMETERS = "gen_ai.request."
NODE = "langfuse.observation.metadata.langgraph_node"
PROVIDERS = ("gen_ai.provider.name", "gen_ai.system", "llm.provider")
LIST_PRICES = Prices()


class SpanSummary(NamedTuple):
    """What the tree of a trace shows of a span; times in Unix nanoseconds. A node is one of LangGraph's."""

    id: str
    parent_id: str | None
    start: int
    end: int
    name: str
    type: str
    level: str
    tokens: int
    cost: float | None
    is_node: bool

    @property
    def latency(self) -> float:
        """Seconds from start to end, never negative."""
        return max(self.end - self.start, 0) / 1e9


@dataclass(frozen=True)
class Observation:
    """One span with the fields that Langfuse derives from it; `prices` are for what it does not say itself."""

    span: Span
    prices: Prices = field(default=LIST_PRICES, repr=False, compare=False)

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

    @property
    def is_node(self) -> bool:
        """Whether it is the run of a node of LangGraph."""
        return text(self.attributes.get(NODE, "")) == self.span.name

    @property
    def summary(self) -> SpanSummary:
        """What the tree of a trace shows of it."""
        span = self.span
        place = (span.span_id, span.parent_id, span.start, span.end)
        return SpanSummary(*place, span.name, self.type, self.level, self.tokens, self.cost, self.is_node)

    @cached_property
    def type(self) -> str:
        """GENERATION, TOOL, AGENT and so on; SPAN by default."""
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
        """The error message, if there is one."""
        return text(self._first("langfuse.observation.status_message") or self.span.message)

    @property
    def input(self) -> Any:
        """The input as received."""
        return self._first(*(OWN_CONTENT[:1] if self._has_own_content else INPUTS))

    @property
    def output(self) -> Any:
        """The output as received."""
        return self._first(*(OWN_CONTENT[1:] if self._has_own_content else OUTPUTS))

    @property
    def _has_own_content(self) -> bool:
        # Where one of them is there, be it empty, Langfuse looks no further for either.
        return any(self.attributes.get(key) is not None for key in OWN_CONTENT)

    @cached_property
    def model(self) -> str | None:
        """The model's name, if the span names one."""
        name = self._first(*MODELS)
        return text(name) if name is not None else None

    @property
    def model_parameters(self) -> Any:
        """The parameters that the model was called with."""
        known = parsed(self._first("langfuse.observation.model.parameters", "llm.invocation_parameters"))
        named = {
            key.removeprefix(PARAMETERS): value
            for key, value in self.attributes.items()
            if key.startswith(PARAMETERS) and key != "gen_ai.request.model"
        }
        return named if known is None and named else known

    @cached_property
    def usage(self) -> dict[str, int]:
        """Tokens by kind; cached, reasoning and audio tokens are not counted again as input and output."""
        said = parsed(self._first("langfuse.observation.usage_details"))
        if isinstance(said, dict):
            return _sent_usage(said)
        counts = {name: _count(self._first(*names)) for name, names in USAGE.items()}
        usage = {name: count for name, count in counts.items() if count is not None}
        for name in usage.keys() & DETAILS.keys():
            usage[name] = max(usage[name] - sum(usage.get(detail, 0) for detail in DETAILS[name]), 0)
        return usage

    @property
    def tokens(self) -> int:
        """All tokens of this span."""
        return self.usage.get("total") or sum(self.usage.values())

    @cached_property
    def _price(self) -> Cost:
        details = parsed(self._first("langfuse.observation.cost_details"))
        if not isinstance(details, dict):
            details = {name: self._first(key) for name, key in COSTS.items()}
            details["total"] = details["total"] or self._first("gen_ai.usage.cost")
        sent = {str(name): cost for name, value in details.items() if (cost := _cost(value)) is not None}
        if sent:
            return Cost(sent | {"total": sum(sent.values())} if sent.keys() <= {"input", "output"} else sent)
        if not self.model:
            return Cost()
        usage = self.usage
        if self.type == "EMBEDDING" and usage.keys() == {"total"}:
            usage = {"input": usage["total"]}
        return self.prices.cost_of(self.model, self._text(*PROVIDERS), usage, self.span.start)

    @property
    def cost_details(self) -> Mapping[str, float]:
        """US dollars by kind of tokens: those that were sent, else by the list price of the model; empty if unknown."""
        return self._price.details

    @property
    def cost_source(self) -> str:
        """Whose prices made the cost; empty if it was sent, or is unknown."""
        return self._price.source

    @property
    def cost(self) -> float | None:
        """US dollars for this span, None if unknown."""
        details = self.cost_details
        return details.get("total", sum(details.values())) if details else None

    @cached_property
    def completion_start(self) -> datetime | None:
        """The time of the first token."""
        said = parsed(self._first("langfuse.observation.completion_start_time"))
        try:
            return datetime.fromisoformat(said).astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            return None

    @property
    def first_token(self) -> float | None:
        """Seconds from the start to the first token."""
        if self.completion_start is None:
            seconds = self._first("gen_ai.response.time_to_first_chunk")
            return float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < MOST_SECONDS else None
        return max(self.completion_start.timestamp() - self.span.start / 1e9, 0.0)

    @property
    def is_root(self) -> bool:
        """Whether it has no parent, or is the outermost span of its program."""
        return self.span.parent_id is None or self._true("langfuse.internal.is_app_root")

    @property
    def public(self) -> bool:
        """Whether it makes its trace public."""
        return self._true("langfuse.trace.public")

    @property
    def prompt_name(self) -> str | None:
        """The name of the prompt that it was made with."""
        return self._text("langfuse.observation.prompt.name")

    @property
    def prompt_version(self) -> int | None:
        """The version of that prompt."""
        return _count(self._first("langfuse.observation.prompt.version"))

    @property
    def error_type(self) -> str | None:
        """The class of the error that it failed with."""
        if self.level != "ERROR":
            return None
        events = (event.attributes.get("exception.type") for event in self.span.events if event.name == "exception")
        return self._text("exception.type", "error.type") or _text_or_none(next(filter(None, events), None))

    @property
    def linked_traces(self) -> list[str]:
        """The other traces that it links to, or that its run continues."""
        resumed = self._text("langfuse.trace.metadata.resumes_trace")
        found = [*(link.trace_id for link in self.span.links), resumed]
        return [each for each in dict.fromkeys(found) if each and each != self.span.trace_id]

    @property
    def trace_name(self) -> str | None:
        """The name that this span gives its trace."""
        return self._text("langfuse.trace.name")

    @property
    def session_id(self) -> str | None:
        """The conversation that this span belongs to."""
        return self._text("session.id", "langfuse.session.id", "gen_ai.conversation.id")

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
        """The version of the program."""
        return self._text("langfuse.version") or _text_or_none(self.span.resource.get("service.version"))

    @property
    def release(self) -> str | None:
        """The release of the program."""
        return self._text("langfuse.release") or _text_or_none(self.span.resource.get("langfuse.release"))

    @property
    def metadata(self) -> dict[str, Any]:
        """The filterable metadata at the top level, everything else of the span in `attributes`."""
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
        attributes = self.span.attributes
        for name in names:
            if (value := attributes.get(name)) not in (None, ""):
                return value
        return None

    def _true(self, name: str) -> bool:
        return text(self.attributes.get(name)).lower() == "true"

    def _text(self, *names: str) -> str | None:
        return _text_or_none(self._first(*names))


@dataclass(frozen=True)
class Trace:
    """A trace, derived from its observations: it has no record of its own."""

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
    def cost(self) -> float | None:
        """All known costs of its spans in US dollars, None where none is known."""
        known = [each.cost for each in self.observations if each.cost is not None]
        return sum(known) if known else None

    @property
    def errors(self) -> int:
        """How many spans failed."""
        return sum(each.level == "ERROR" for each in self.observations)


def text(value: Any) -> str:
    """Return a value as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def parsed(value: Any) -> Any:
    """Return the value of a JSON string, and any other value unchanged."""
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


def _sent_usage(usage: dict[Any, Any]) -> dict[str, int]:
    """Return the usage under Langfuse's names instead of OpenAI's three, with a total."""
    names = OPENAI_USAGE if usage.keys() >= OPENAI_USAGE.keys() else {}
    counts = {
        str(names.get(name, name)): count for name, value in usage.items() if (count := _count(value)) is not None
    }
    return counts | {"total": counts.get("total", sum(counts.values()))} if counts else {}


def _cost(value: Any) -> float | None:
    try:
        cost = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return cost if 0 <= cost <= MOST_COST else None


@dataclass(frozen=True)
class ExperimentOf:
    """The experiment that an observation is part of, and the item that it belongs to."""

    id: str
    name: str
    dataset: str | None
    item_id: str
    is_root: bool


def experiment_of(observation: Observation) -> ExperimentOf | None:
    """Return the experiment that an observation is part of, None for any other."""
    found = {
        name.removeprefix("langfuse.experiment."): text(value)
        for name, value in observation.attributes.items()
        if name.startswith("langfuse.experiment.")
    }
    if not found.get("id"):
        return None
    is_root = bool(found.get("item.id")) and found.get("item.root_observation_id") == observation.id
    dataset = found.get("dataset.id") or None
    return ExperimentOf(found["id"], found.get("name", ""), dataset, found.get("item.id", ""), is_root)
