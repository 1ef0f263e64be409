"""Events and histories, read into the same exchanges."""

from typing import Any

from app.schema import (
    ChatHistory,
    ChatMessage,
    EndEvent,
    ErrorEvent,
    InterruptEvent,
    MessageEvent,
    RunEvent,
    StreamEvent,
    TokenEvent,
    ToolCall,
)
from ui.exchange import Exchange, ToolUse, from_events, from_history, with_latest

RUN = RunEvent(run_id="r-1", trace_id="a1", thread_id="t-1", sampled=True, trace_url="http://traces/a1")
CALL = ToolCall(name="calculator", args={"expression": "1/0"}, id="c-1")


def said(kind: Any, content: str, **more: Any) -> ChatMessage:
    return ChatMessage(type=kind, content=content, run_id="r-1", trace_id="a1", **more)


ASKING = said("ai", "Let me see.", tool_calls=[CALL])
RESULT = said("tool", "division by zero", tool_call_id="c-1", custom_data={"status": "error"})
ANSWER = said("ai", "It cannot be done.")
PARTS = [
    "Let me see.",
    ToolUse("calculator", {"expression": "1/0"}, "c-1", "division by zero", failed=True),
    "It cannot be done.",
]


def test_a_stream_and_its_history_read_alike() -> None:
    """What was seen while it streamed is what a reload shows."""
    events: list[StreamEvent] = [RUN, *(MessageEvent(content=one) for one in (ASKING, RESULT, ANSWER))]
    history = ChatHistory(
        messages=[said("human", "What is 1/0?"), ASKING, RESULT, ANSWER], trace_urls={"a1": "http://traces/a1"}
    )

    live, (past,) = from_events("What is 1/0?", events), from_history(history)

    assert live == past
    assert live.parts == PARTS


def test_tokens_give_way_to_the_message_that_they_became() -> None:
    """An answer is there once, while it is written and afterwards."""
    events: list[StreamEvent] = [RUN, TokenEvent(content="It cannot "), TokenEvent(content="be done.")]
    assert from_events("?", events).answer == "It cannot be done."

    whole = from_events("?", [*events, MessageEvent(content=ANSWER)])
    assert (whole.partial, whole.parts) == ("", ["It cannot be done."])


def test_how_a_turn_ended_is_kept() -> None:
    """Errors, questions and the end's own link are there to be drawn."""
    events: list[StreamEvent] = [
        RUN,
        InterruptEvent(id="i-1", value="Shall I?"),
        ErrorEvent(error="ToolError", message="No luck", trace_id="a1"),
        EndEvent(status="failed", trace_url="http://traces/kept"),
    ]
    end = from_events("?", events)
    assert (end.questions, end.error, end.status, end.trace_url) == (
        ["Shall I?"],
        "No luck",
        "failed",
        "http://traces/kept",
    )


def test_a_trace_that_was_not_kept_has_no_link() -> None:
    """The end of a stream takes back the link of a trace that was sampled out."""
    assert from_events("?", [RUN, EndEvent(status="completed", kept=False)]).trace_url is None


def test_the_latest_turn_stands_once() -> None:
    """The turn of this process takes the place of the same run, or of its unanswered question, or comes last."""
    latest = Exchange("Again?", run_id="r-2")
    older = Exchange("First?", run_id="r-1")

    assert with_latest([older, Exchange("Again?", run_id="r-2")], latest) == [older, latest]
    assert with_latest([older, Exchange("Again?")], latest) == [older, latest]
    assert with_latest([older], latest) == [older, latest]
