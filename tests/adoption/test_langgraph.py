"""Every agent's outermost run is a turn, with any release of LangChain and LangGraph."""

import json

import pytest

from tests.adoption.harness import Ran, run

WAYS = {"graph": "sums", "create_agent": "clerk", "planner": "planner", "functional": "sums", "chain": "", "model": ""}


@pytest.fixture(scope="module", params=["openinference", "recorder"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run("langgraph_service", tmp_path_factory.mktemp("spool"), TELEMETRY_LANGCHAIN=request.param)


def test_one_trace_per_request(ran: Ran) -> None:
    """No span stands alone, and the program's answers are the same without tracing."""
    assert json.loads(ran.answer) == dict.fromkeys(WAYS, "It is 408.")
    assert [trace.root.span.name for trace in ran.traces if trace.root] == ["POST /ask/{way}"] * len(WAYS)
    assert ran.orphans == []


@pytest.mark.parametrize(("way", "name"), WAYS.items())
def test_a_turn_has_a_question_an_answer_a_session_and_a_user(ran: Ran, way: str, name: str) -> None:
    """The request around it shows them, and the trace has the agent's name where it has one."""
    trace = ran.of_session(f"thread-{way}")
    assert {each.span.attributes.get("user.id") for each in trace.observations} == {"ada"}
    (turn,) = trace.named("turn")
    # The turn's own span does not repeat what the root of its trace shows.
    assert trace.root
    assert (trace.root.input, trace.root.output) == ("What is 12*34?", "It is 408.")
    assert turn.span.attributes["turn.status"] == "completed"
    if name:
        assert trace.name == name


def test_nothing_internal_is_recorded(ran: Ran) -> None:
    """What LangGraph marks as hidden is no step of an agent."""
    names = {each.span.name for trace in ran.traces for each in trace.observations}
    assert not [name for name in names if name.startswith(("__", "ChannelWrite"))]


def test_kinds(ran: Ran) -> None:
    """Models are generations, tools are tools."""
    trace = ran.of_session("thread-graph")
    assert [each.span.name for each in trace.of("generation")] == ["Model", "Model"]
    (tool,) = trace.of("tool")
    assert (tool.span.name, tool.output) == ("calculator", 408)
