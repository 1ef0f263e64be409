"""One turn is one tree, from the chat to the tool, over a real socket."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import telemetry
from app.client import AgentClient, Failed
from app.schema import EndEvent, ErrorEvent, RunEvent
from telemetry.testing import Recorded
from tests.service import service


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path) as url:
        yield AgentClient(url, "chatbot", user_id="ada")


def ask(client: AgentClient, message: str, thread_id: str = "t-1") -> list:
    with telemetry.scope(session_id=thread_id, user_id="ada", agent="chatbot"), telemetry.span("chat turn"):
        return list(client.stream(message, thread_id=thread_id))


def golden(text: str) -> str:
    return dedent(text).strip()


def test_streamed_turn_with_a_tool(client: AgentClient, spans: Recorded) -> None:
    """A streamed turn with one tool call is one tree of at most 14 spans without orphans."""
    events = ask(client, "What is 12*34?")

    assert spans.tree() == golden("""
        chat turn
          POST CLIENT
            POST /{agent_id}/stream SERVER
              turn AGENT
                stream
                chatbot
                  model
                    DemoModel LLM
                    tools_condition
                  tools
                    calculator TOOL
                  model
                    DemoModel LLM
                    tools_condition
    """)
    (run,) = [event for event in events if isinstance(event, RunEvent)]
    assert events[0] is run
    assert {f"{span.context.trace_id:032x}" for span in spans.settled() if span.context} == {run.trace_id}
    assert isinstance(events[-1], EndEvent)
    assert events[-1].status == "completed"


def test_plain_streamed_turn(client: AgentClient, spans: Recorded) -> None:
    """A plain turn makes no more than ten spans."""
    ask(client, "Hello")

    assert spans.tree() == golden("""
        chat turn
          POST CLIENT
            POST /{agent_id}/stream SERVER
              turn AGENT
                stream
                chatbot
                  model
                    DemoModel LLM
                    tools_condition
    """)


def test_invoked_turn(client: AgentClient, spans: Recorded) -> None:
    """An invoked turn is the same tree without a stream; without a chat it begins with the request."""
    answer = client.invoke("What is 12*34?", thread_id="t-1")

    assert "408" in answer.content
    assert spans.tree() == golden("""
        POST CLIENT
          POST /{agent_id}/invoke SERVER
            turn AGENT
              chatbot
                model
                  DemoModel LLM
                  tools_condition
                tools
                  calculator TOOL
                model
                  DemoModel LLM
                  tools_condition
    """)


def test_every_span_says_whose_turn_it_is(client: AgentClient, spans: Recorded) -> None:
    """Session, user, name and tags are equal on every span; the run is on all that began after it was known."""
    ask(client, "What is 12*34?", "t-7")

    for span in spans.settled():
        stamps = dict(span.attributes or {})
        assert stamps["session.id"] == "t-7", span.name
        assert stamps["user.id"] == "ada", span.name
        assert stamps["langfuse.trace.name"] == "chatbot", span.name
        assert stamps["langfuse.trace.tags"] == ("chatbot",), span.name
    with_run = [span for span in spans.settled() if "langfuse.trace.metadata.run" in (span.attributes or {})]
    assert len(with_run) == len(spans.settled()) - 2  # the chat's own span and its HTTP call came before


def test_failing_model(client: AgentClient, spans: Recorded) -> None:
    """A model that fails leaves a readable tree, an error event with the trace id and an honest end."""
    events = ask(client, "/fail")

    assert spans.tree() == golden("""
        chat turn
          POST CLIENT
            POST /{agent_id}/stream SERVER
              turn AGENT ERROR
                stream
                chatbot ERROR
                  model ERROR
                    DemoModel LLM ERROR
    """)
    assert isinstance(events[-2], ErrorEvent)
    assert events[-2].trace_id == events[0].trace_id
    assert isinstance(events[-1], EndEvent)
    assert events[-1].status == "failed"


def test_what_a_failing_model_had_said_is_kept(client: AgentClient, spans: Recorded) -> None:
    """A model that fails in the middle leaves its first words on its span and on the turn's."""
    ask(client, "/fail-after 3")

    said = {span.name: (span.attributes or {}).get("output.value") for span in spans.settled()}
    assert said["DemoModel"] == said["turn"] != ""
    assert str(said["turn"]).startswith("You said")


def test_failing_invoke(client: AgentClient) -> None:
    """A failed invoke is a typed error that carries the trace id."""
    with pytest.raises(Failed) as failure:
        client.invoke("/fail")

    assert failure.value.trace_id


def test_lists_and_health_make_no_trace(client: AgentClient, spans: Recorded) -> None:
    """What is asked again and again makes no span as long as it goes well."""
    client.invoke("Hello", thread_id="t-1")
    spans.settled()
    spans.clear()
    with telemetry.suppress_instrumentation():
        client.info()
        client.get_history("t-1")

    assert spans.tree() == ""
