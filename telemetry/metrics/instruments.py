"""The instruments: names, units and bucket boundaries, those of OpenTelemetry's conventions where there are any."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from telemetry.internal_errors import handle_internal_errors
from telemetry.scores.score import Value

Kind = Literal["histogram", "observable counter", "observable gauge"]

# What stands for a value beyond the first ones, as in the HTTP conventions.
OTHER = "_OTHER"
# How many values an attribute may have in a process: models, tools, agents, names of scores, classes of errors.
MAX_VALUES = 100
MAX_LENGTH = 100

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(float(4**power) for power in range(14))


@dataclass(frozen=True)
class Instrument:
    """One instrument, with the attributes that its data points may have."""

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: tuple[str, ...] = ()
    boundaries: tuple[float, ...] | None = None


_OPERATION = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")

TOKEN_USAGE = Instrument(
    "gen_ai.client.token.usage",
    "histogram",
    "{token}",
    "Number of input and output tokens used.",
    (*_OPERATION, "gen_ai.token.type"),
    _TOKENS,
)
OPERATION_DURATION = Instrument(
    "gen_ai.client.operation.duration",
    "histogram",
    "s",
    "GenAI operation duration.",
    (*_OPERATION, "error.type"),
    _SECONDS,
)
FIRST_CHUNK = Instrument(
    "gen_ai.client.operation.time_to_first_chunk",
    "histogram",
    "s",
    "Time to receive the first chunk of a streamed answer.",
    _OPERATION,
    _SECONDS,
)
AGENT_DURATION = Instrument(
    "gen_ai.invoke_agent.duration",
    "histogram",
    "s",
    "Duration of one invocation of an agent.",
    ("gen_ai.agent.name", "error.type"),
    (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6),
)
TOOL_DURATION = Instrument(
    "gen_ai.execute_tool.duration",
    "histogram",
    "s",
    "Duration of one tool execution.",
    ("gen_ai.tool.name", "gen_ai.agent.name", "error.type"),
    _SECONDS,
)
TURNS = Instrument(
    "agent.turns",
    "observable counter",
    "{turn}",
    "Turns that have ended, by their status.",
    ("gen_ai.agent.name", "turn.status"),
)
COST = Instrument(
    "agent.cost",
    "observable counter",
    "{USD}",
    "Cost of model calls in dollars, where it is known.",
    ("gen_ai.provider.name", "gen_ai.request.model"),
)
SCORE = Instrument(
    "agent.score",
    "histogram",
    "1",
    "Values of scores: feedback, and evaluators.",
    ("gen_ai.evaluation.name",),
    (0, 0.25, 0.5, 0.75, 1, 2, 3, 4, 5, 10),
)

RECORDED = (TOKEN_USAGE, OPERATION_DURATION, FIRST_CHUNK, AGENT_DURATION, TOOL_DURATION, TURNS, COST, SCORE)
"""What is recorded when a span ends or a score is given; `telemetry/metrics/figures.py` has the pipeline's own."""


class Counts:
    """A counter without exemplars: its sums are kept here, and read when metrics are collected.

    That takes a tenth of the time of a measurement of the SDK.
    """

    def __init__(self, meter: Meter, of: Instrument) -> None:
        self._sums: dict[frozenset[tuple[str, str]], float] = {}
        self._lock = threading.Lock()
        meter.create_observable_counter(of.name, [self._observe], of.unit, of.description)

    def add(self, value: float, attributes: dict[str, str]) -> None:
        """Add a value to the sum of these attributes."""
        key = frozenset(attributes.items())
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + value

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            return [Observation(value, dict(key)) for key, value in self._sums.items()]


class Instruments:
    """The instruments of this process. Every text of an attribute is redacted, and has a bounded number of values."""

    def __init__(self, meter: Meter, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._values: dict[str, dict[str, str]] = {}
        self.token_usage = _histogram(meter, TOKEN_USAGE)
        self.operation_duration = _histogram(meter, OPERATION_DURATION)
        self.first_chunk = _histogram(meter, FIRST_CHUNK)
        self.agent_duration = _histogram(meter, AGENT_DURATION)
        self.tool_duration = _histogram(meter, TOOL_DURATION)
        self.turns = Counts(meter, TURNS)
        self.cost = Counts(meter, COST)
        self.score = _histogram(meter, SCORE)

    def bounded(self, key: str, value: object) -> str:
        """Return the value of an attribute as it may be sent; `_OTHER` once there are too many different ones."""
        known, text = self._values.setdefault(key, {}), str(value)
        if (found := known.get(text)) is not None:
            return found
        if len(known) >= MAX_VALUES:
            return OTHER
        return known.setdefault(text, self._redact(text)[:MAX_LENGTH])

    def record_score(self, name: str, value: Value | None, context: Context | None = None) -> None:
        """Record the value of a score; a category and the deletion of a score have none."""
        if isinstance(value, (bool, int, float)):
            with handle_internal_errors("record a metric"):
                self.score.record(value, {"gen_ai.evaluation.name": self.bounded("score", name)}, context)


def _histogram(meter: Meter, of: Instrument) -> Histogram:
    return meter.create_histogram(
        of.name, of.unit, of.description, explicit_bucket_boundaries_advisory=list(of.boundaries or ())
    )
