"""Traces of a made-up agent over a week, the same for the same numbers, with faults to be found in a viewer.

The faults: the tool `weather` fails most, by a timeout; one turn of yesterday waits for three minutes, for
`query_database`; since version 1.4.0 the prompt is four times as long; the model `gpt-5.6-sol` takes longest to its
first token; the environment `staging` meets the rate limit; `ivan` uses most; one turn searches forty times in a row;
answers about refunds are disliked.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from telemetry.export.otlp import Event, Span

DAY_NS = 86_400 * 10**9
WEEK_NS = 7 * DAY_NS
USERS = ("ada", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
MODELS = ("gpt-5.6-sol", "gpt-5.6-terra", "claude-haiku-4-5")
TOOLS = ("search", "weather", "query_database", "calculator", "read_file")
FAILING = {"weather": 0.15, "search": 0.02, "query_database": 0.02}
TOPICS = {
    "search": "What is new about {}?",
    "weather": "How is the weather in {}?",
    "query_database": "How many orders came from {} last month?",
    "calculator": "What is 12 percent of the turnover of {}?",
    "read_file": "Sum up the report about {}.",
}
PLACES = ("Paris", "Berlin", "Lisbon", "Oslo", "Kyoto", "Lima", "Accra", "Perth", "Graz", "Turin")
PROMPT = "You are a helpful agent. Answer in one sentence, and say where it is from. "
SLOW_USER, SLOW_TOOL = "grace", "query_database"
CHANGED = 4 * DAY_NS  # after the start of the week
STEP = 10**6


@dataclass
class _Trace:
    """The spans of one trace, as far as they are made; `clock` is the time of the next."""

    trace_id: str
    clock: int
    common: dict[str, Any]
    resource: dict[str, Any]
    spans: list[Span] = field(default_factory=list)

    def new_id(self) -> str:
        return f"{len(self.spans) + 1:04x}{self.trace_id[-12:]}"

    def add(self, span_id: str, parent: str | None, name: str, kind: str, start: int, **fields: Any) -> None:
        attributes = self.common | {"openinference.span.kind": kind} | fields.pop("attributes", {})
        end = self.clock
        self.spans.append(
            Span(
                self.trace_id,
                span_id,
                parent,
                name,
                "INTERNAL",
                start,
                end,
                attributes,
                resource=self.resource,
                **fields,
            )
        )


def traces(count: int, until: int, rounds: int = 2) -> Iterator[list[Span]]:
    """Yield so many traces of the week before this time in Unix nanoseconds, the oldest first.

    A trace of `rounds` model calls with a tool has 2 + 4 * `rounds` spans.
    """
    start = until - WEEK_NS
    slow = int(count * 6.3 / 7)
    loop = int(count * 5.5 / 7)
    for number in range(count):
        random = Random(number)  # noqa: S311 - no secret
        begun = start + WEEK_NS * number // count + random.randrange(WEEK_NS // count)
        if number == slow:
            yield _turn(number, begun, random, rounds, begun - start, slow=True)
        else:
            yield _turn(number, begun, random, 40 if number == loop else rounds, begun - start, loop=number == loop)


def wide_trace(spans: int, until: int) -> list[Span]:
    """Return one trace of about so many spans."""
    random = Random(spans)  # noqa: S311 - as above
    return _turn(10**9 + spans, until - DAY_NS // 24, random, (spans - 2) // 4, WEEK_NS, steady=True)


def scores(all_spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return the thumbs that the people of these traces gave, in the format of Langfuse's API."""
    given = []
    for span in all_spans:
        if span.parent_id is None and (int(span.trace_id[-8:], 16) % 20 == 0):
            disliked = "refund" in span.attributes["input.value"] or int(span.trace_id[-8:], 16) % 160 == 0
            score = {"traceId": span.trace_id, "name": "user-thumbs", "value": int(not disliked), "dataType": "BOOLEAN"}
            given.append(score | ({"comment": "That is not what the terms say."} if disliked else {}))
    return given


def _turn(
    number: int,
    begun: int,
    random: Random,
    rounds: int,
    age: int,
    *,
    slow: bool = False,
    loop: bool = False,
    steady: bool = False,
) -> list[Span]:
    user = SLOW_USER if slow else USERS[8] if random.random() < 0.2 else random.choice(USERS)
    tool = SLOW_TOOL if slow else "search" if loop else random.choice(TOOLS)
    model = random.choice(MODELS)
    staging = random.random() < 0.1 and not steady
    place = random.choice(PLACES)
    question = TOPICS[tool].format(place)
    if number % 400 == 0:
        question = f"May I have a refund for my trip to {place}?"
    version = "1.4.0" if age >= CHANGED else "1.3.0"
    common = {
        "session.id": f"talk-{user}-{number // 50}",
        "user.id": user,
        "langfuse.trace.name": "research" if tool in ("search", "read_file") else "assistant",
        "metadata": json.dumps({"number": number}),
    }
    environment = "staging" if staging else "production"
    resource = {"service.name": "agent", "service.version": version, "deployment.environment.name": environment}
    made = _Trace(f"{random.getrandbits(96):024x}{number:08x}", begun, common, resource)
    root = made.new_id()
    made.spans.append(Span(made.trace_id, root, None, "turn", "INTERNAL", 0, 0, {}))  # its place, until it ends
    agent = f"ffff{made.trace_id[-12:]}"
    prompt = PROMPT * (4 if version == "1.4.0" else 1) * 8
    messages = [{"role": "system", "content": prompt}, {"role": "user", "content": question}]
    failure = ""
    for step in range(rounds):
        failure = _model(made, agent, model, messages, random, limited=staging and random.random() < 0.1)
        if failure:
            break
        seconds = 180.0 if slow and step == 0 else random.lognormvariate(-1, 0.6)
        broken = _tool(made, agent, tool, place, seconds, random)
        messages += [{"role": "tool", "content": broken or f"Result {step} for {place}."}]
        if broken and random.random() < 0.5 and not (loop or steady):
            failure = broken
            break
    answer = "" if failure else f"{place}: {random.randrange(1000)}, as the tool {tool} says, in step {rounds}."
    status = "failed" if failure else random.choices(("completed", "cancelled", "waiting"), (96, 3, 1))[0]
    ended = {"status": "ERROR" if failure else "OK", "message": failure}
    told = {"input.value": question, "output.value": answer, "turn.status": status}
    made.add(agent, root, "graph", "CHAIN", begun + STEP, **ended)
    made.clock += STEP
    made.add(root, None, "turn", "AGENT", begun, attributes=told, **ended)
    made.spans[0] = made.spans.pop()
    return made.spans


def _model(
    made: _Trace, parent: str, model: str, messages: list[dict[str, str]], random: Random, *, limited: bool
) -> str:
    node, start = made.new_id(), made.clock
    made.clock += STEP
    call = f"eeee{node[:4]}{made.trace_id[-8:]}"
    first = random.lognormvariate(0.6 if model == MODELS[0] else -0.7, 0.3)
    begun = made.clock
    made.clock += int((0.2 if limited else first * 2) * 1e9)
    tokens = sum(len(each["content"]) for each in messages) // 4, random.randrange(20, 120)
    attributes: dict[str, Any] = {
        "llm.model_name": model,
        "llm.token_count.prompt": tokens[0],
        "llm.token_count.completion": tokens[1],
        "llm.token_count.total": sum(tokens),
        "gen_ai.response.time_to_first_chunk": first,
        "input.value": json.dumps({"messages": messages[:6]}),
        "input.mime_type": "application/json",
    }
    error = "RateLimitError: too many requests, try again in 20 s" if limited else ""
    if not error:
        attributes |= {"output.value": json.dumps({"role": "assistant", "content": "I shall look it up."})}
    _end(made, call, node, model, "LLM", begun, attributes, error)
    made.clock += STEP
    made.add(node, parent, "model", "CHAIN", start, status="ERROR" if error else "OK", message=error)
    return error


def _tool(made: _Trace, parent: str, tool: str, place: str, seconds: float, random: Random) -> str:
    node, start = made.new_id(), made.clock
    made.clock += STEP
    call = f"dddd{node[:4]}{made.trace_id[-8:]}"
    failed = random.random() < FAILING.get(tool, 0.005)
    kinds = {"weather": "TimeoutError: no answer in 5 s"}
    error = kinds.get(tool, "ValueError: the arguments are not valid") if failed else ""
    begun = made.clock
    made.clock += int(seconds * 1e9)
    attributes = {"tool.name": tool, "input.value": json.dumps({"place": place})}
    if not error:
        attributes["output.value"] = f"Result for {place}."
    _end(made, call, node, tool, "TOOL", begun, attributes, error)
    made.clock += STEP
    made.add(node, parent, "tools", "CHAIN", start)
    return error


def _end(
    made: _Trace, span_id: str, parent: str, name: str, kind: str, start: int, attributes: dict[str, Any], error: str
) -> None:
    events = []
    if error:
        kind_of_error, _, message = error.partition(": ")
        fields = {"exception.type": kind_of_error, "exception.message": message}
        events = [Event("exception", made.clock, fields)]
    made.add(
        span_id,
        parent,
        name,
        kind,
        start,
        attributes=attributes,
        status="ERROR" if error else "OK",
        message=error,
        events=events,
    )
