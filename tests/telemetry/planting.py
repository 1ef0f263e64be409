"""A program with secrets everywhere, in a process of its own: `python -m tests.telemetry.planting SEED`.

It waits for a line of its standard input once its spans are in the spool, sends them, and ends.
"""

import json
import logging
import random
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from pydantic import BaseModel

import telemetry
from tests.telemetry.export.test_redact_forms import NAMED, PEM
from tests.telemetry.planted import (
    CONTEXT,
    ENCODINGS,
    FEATURES,
    LETTERS,
    MORE_PLACES,
    OPEN_SESAME,
    TOKEN,
    finished,
    with_changes,
)

SPOOLED = "everything is in the spool"
# What stands beside the secrets, to know that it is read where they are looked for.
FINE = "a fine day"
# What only the conversation holds.
SAID = "a rainy night"

# Longer than what one may filter by, which is cut in the middle of it.
CUT = "a b " * 45 + TOKEN

log = logging.getLogger("program")


@dataclass
class Login:
    """A record of the program's own."""

    name: str
    note: str


class Form(BaseModel):
    """A model of the program's own."""

    note: str
    password: str


class AsJson(logging.Formatter):
    """Formats all parts of a record itself, exceptions too, as JSON handlers do."""

    def format(self, record: logging.LogRecord) -> str:
        raised = record.exc_info and record.exc_info[1]
        parts = {**record.__dict__, "message": record.getMessage()}
        parts["raised"] = "".join(traceback.format_exception(raised)) if raised else ""
        return json.dumps({key: repr(value) for key, value in parts.items()})


class Says(BaseChatModel):
    """A model that asks for a tool, and says what it was told."""

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        calls = [{"name": "look_up", "args": {"what": TOKEN, "password": OPEN_SESAME}, "id": "c"}]
        is_first = not any(message.type == "tool" for message in messages)
        message = AIMessage(f"{SAID}: I noted {TOKEN}", tool_calls=calls if is_first else [])
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "says"


@tool
def look_up(what: str, password: str) -> str:
    """Look something up."""
    return f"{what} and password={password!r}: {SAID}"


def _fail() -> None:
    raise ValueError(f"no access with {TOKEN}")


def _capture() -> None:
    try:
        _fail()
    except ValueError as error:
        telemetry.capture_exception(error)


# What a node does before it answers.
BESIDE: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "an event": lambda: telemetry.get_span().add_event("cache miss", {"key": TOKEN}),
    "an exception": _capture,
    "a link": lambda: telemetry.get_span().add_link(CONTEXT, {"why": TOKEN}),
    "a failure": _fail,
    # Wherever it is cut, that is within one of them.
    "a long text": lambda: telemetry.get_span().set_attribute("long", f"{TOKEN} " * 900 + "a b " * 13_000),
    "a score": lambda: telemetry.score(f"named {TOKEN}", TOKEN, comment=TOKEN, metadata={"seen": {TOKEN}, "it": Login}),
}


def run_agent(beside: Callable[[], object]) -> None:
    """Run an agent with a model, a tool and a node of the program's own; each of them has the secret."""

    def ask(state: MessagesState) -> dict[str, Any]:
        beside()
        return {"messages": [Says().invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([look_up]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    graph.add_edge("tools", "ask")
    agent = graph.compile(name="agent")
    with suppress(ValueError):
        agent.invoke(
            cast(Any, {"messages": [("user", f"{SAID}: my key is {TOKEN}")]}),
            {"metadata": {"note": TOKEN, "password": OPEN_SESAME}, "tags": [TOKEN]},
        )


def replay(span: ReadableSpan) -> None:
    """Record a span as the program's own, with all that one holds."""
    scope = span.instrumentation_scope
    tracer = trace.get_tracer(
        scope.name if scope else "planted",
        scope.version if scope else None,
        attributes=scope.attributes if scope else None,
    )
    state = span.context.trace_state if span.context else None
    parent = NonRecordingSpan(SpanContext(CONTEXT.trace_id, CONTEXT.span_id, False, TraceFlags(1), state))
    links = [Link(link.context, link.attributes) for link in span.links]
    attributes = dict(span.attributes or {})
    own = tracer.start_span(span.name, set_span_in_context(parent), span.kind, attributes, links)
    for event in span.events:
        own.add_event(event.name, event.attributes)
    own.set_status(span.status)
    own.end()


def write_logs() -> None:
    """Log the secret in every part that a record has."""
    log.warning("%s: %s", FINE, TOKEN)
    log.warning("%s, password=%r", FINE, OPEN_SESAME, stack_info=True)
    for value in ({TOKEN}, [TOKEN], ValueError(TOKEN), Login("ada", TOKEN), Form(note=TOKEN, password=OPEN_SESAME)):
        log.warning("with a value", extra={"given": value})
    # A stack names the files of a program.
    write = partial(log.warning, "with a stack", stack_info=True)
    exec(compile("call()", f"{TOKEN}.py", "exec"), {"call": lambda: write()})
    log.warning("with more", extra={"path": PurePath(TOKEN), "password": OPEN_SESAME, TOKEN: 1})
    try:
        _fail()
    except ValueError:
        log.exception("it failed")


def write_scores(trace_id: str) -> None:
    """Score a trace with the secret in every part that a score has."""
    for value in (TOKEN, 1.0):
        telemetry.score("note", value, trace_id=trace_id, comment=f"{FINE}: {TOKEN}", metadata={TOKEN: {TOKEN}})
    telemetry.score(TOKEN, True, trace_id=trace_id, metadata={"form": Form(note=TOKEN, password=OPEN_SESAME)})
    telemetry.score("raised", True, trace_id=trace_id, metadata={"error": ValueError(TOKEN), "password": OPEN_SESAME})


def main(seed: str) -> None:
    """Plant, wait and send."""
    made = random.Random(seed)
    plain, as_json = logging.StreamHandler(), logging.StreamHandler()
    as_json.setFormatter(AsJson())
    logging.basicConfig(handlers=[plain, as_json])
    telemetry.configure("shop")
    telemetry.guard_logs()
    count = 0
    for feature in FEATURES.values():
        for place, make in MORE_PLACES.items():
            # The header of a trace's state holds no encoded text, and a scope is asked for as it is.
            text = TOKEN if place == "trace state" else made.choice(list(ENCODINGS.values()))(TOKEN)
            span = make(text)
            replay(with_changes(span, **feature(span)))
            count += 1
    # In the name that is made of it, nothing tells what it is any more.
    webhook = f"https://hooks.slack.com/services/T0/B0/{LETTERS}"
    replay(finished("POST", kind=SpanKind.CLIENT, attributes={"http.request.method": "POST", "url.full": webhook}))
    # As people paste them.
    key = ["-----BEGIN RSA PRIVATE KEY-----", LETTERS, LETTERS, "-----END RSA PRIVATE KEY-----"]
    for text in (*NAMED, *(form(lines) for form in PEM.values() for lines in (key, key[:-1]))):
        replay(finished(attributes={"note": text}))
    # What no tracer of ours records is withheld as what they record.
    messages = [Event(f"gen_ai.{role}.message", {"content": SAID}) for role in ("user", "assistant")]
    events = (*messages, Event("read", {"input.value": SAID}))
    replay(finished("said", attributes={"input.value": SAID, "output.value": SAID}, events=events))
    # What leaves under every setting but one.
    words = f"{FINE} for all of us"
    replay(
        finished(
            words,
            Status(StatusCode.ERROR, words),
            attributes={"langfuse.trace.name": words},
            events=(Event(words, {"what": words}),),
            links=(Link(CONTEXT, {"why": words}),),
            instrumentation_scope=InstrumentationScope("library", "1", None, {"about": words}),
        )
    )
    with telemetry.scope(tags=[CUT], metadata={"cut": CUT}):
        for beside in BESIDE.values():
            run_agent(beside)
    write_logs()
    write_scores("1" * 32)
    with telemetry.span("the last one", note=FINE):
        pass
    telemetry.flush(1)
    sys.stdout.write(json.dumps({"said": SPOOLED, "spans": count}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    # A backend that was down is tried again after a pause.
    until = time.monotonic() + 60
    while not telemetry.flush(5) and time.monotonic() < until:
        time.sleep(0.2)
    telemetry.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
