"""Metrics of finished spans: what is counted, under which attributes, and what no sampling changes."""

from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.trace import StatusCode

import telemetry
from app.client import AgentClient, AgentError
from telemetry.metrics.figures import FIGURES
from telemetry.metrics.instruments import RECORDED
from telemetry.settings import Settings
from tests.conftest import DUMMY
from tests.flawed_agents import TABLE
from tests.processes import until
from tests.service import service
from tests.telemetry.metrics.measuring import Measured, measuring

QUESTION = "What is 12*34?"
RECORDERS = ("openinference", "recorder")


def of(recorder: str, **more: object) -> Settings:
    return Settings.model_validate({"TELEMETRY_LANGCHAIN": recorder, **more})


def turn(folder: Path, measured: Measured) -> None:
    """A streamed turn with one tool call and two model calls."""
    with service(folder) as url:
        list(AgentClient(url, "chatbot").stream(QUESTION))
    until(lambda: not measured.spans.open)


@pytest.mark.parametrize("recorder", RECORDERS)
def test_a_turn(tmp_path: Path, recorder: str) -> None:
    """A turn is one of an agent; its model calls and tools are timed and their tokens counted, by both recorders."""
    with measuring(of(recorder)) as measured:
        turn(tmp_path, measured)
        model = ("chat", "demo", "demo")
        assert measured.counts("agent.turns") == {("chatbot", "completed"): 1}
        assert measured.counts("gen_ai.invoke_agent.duration") == {("chatbot",): 1}
        assert measured.counts("gen_ai.execute_tool.duration") == {("chatbot", "calculator"): 1}
        assert measured.counts("gen_ai.client.operation.duration") == {model: 2}
        assert measured.counts("gen_ai.client.operation.time_to_first_chunk") == {model: 2}
        assert measured.counts("gen_ai.client.token.usage") == {(*model, "input"): 2, (*model, "output"): 2}
        used = {key[-1]: point.sum for key, point in measured.points("gen_ai.client.token.usage").items()}
        (ended,) = [span for span in measured.spans.get_finished_spans() if span.name == "turn"]
        known = ended.attributes or {}
        assert used == {"input": known["turn.input_tokens"], "output": known["turn.output_tokens"]}


def test_durations_are_those_of_the_spans(tmp_path: Path) -> None:
    """What the conventions ask for: a metric beside a span has its duration."""
    with measuring() as measured:
        turn(tmp_path, measured)
        spans = {span.name: span for span in measured.spans.get_finished_spans()}
        for name, span in {
            "gen_ai.invoke_agent.duration": "turn",
            "gen_ai.execute_tool.duration": "calculator",
        }.items():
            (point,) = measured.points(name).values()
            assert point.sum == ((spans[span].end_time or 0) - (spans[span].start_time or 0)) / 1e9


def test_an_exemplar_names_the_trace(tmp_path: Path) -> None:
    """From a bucket of a histogram one finds the span that fell into it."""
    with measuring() as measured:
        turn(tmp_path, measured)
        (ended,) = [span for span in measured.spans.get_finished_spans() if span.name == "turn"]
        (point,) = measured.points("gen_ai.invoke_agent.duration").values()
        (exemplar,) = point.exemplars
        assert ended.context
        assert (exemplar.trace_id, exemplar.span_id) == (ended.context.trace_id, ended.context.span_id)


@pytest.mark.parametrize("recorder", RECORDERS)
def test_sampling_changes_no_metric(tmp_path: Path, recorder: str) -> None:
    """A turn that is sampled out is counted as any other, has no exemplar, and none of its spans is sent."""
    settings = of(recorder, LANGFUSE_SAMPLING_RATE=0, OTEL_METRICS_EXPORTER="prometheus")
    with measuring(settings) as measured:
        turn(tmp_path, measured)
        assert measured.counts("agent.turns") == {("chatbot", "completed"): 1}
        assert sum(measured.counts("gen_ai.client.operation.duration").values()) == 2
        assert [point.exemplars for point in measured.points("gen_ai.invoke_agent.duration").values()] == [[]]
        assert measured.spans.get_finished_spans() == ()


def test_without_metrics_sampling_out_stays_free(tmp_path: Path) -> None:
    """Nothing is recorded of a turn that is sampled out, unless metrics are on."""
    with measuring(Settings.model_validate({"LANGFUSE_SAMPLING_RATE": 0})) as measured:
        turn(tmp_path, measured)
        assert measured.counts("agent.turns") == {}


@pytest.mark.parametrize(("agent", "status"), [("broken_node", "failed"), ("slow", "failed")])
def test_a_turn_that_fails(tmp_path: Path, agent: str, status: str) -> None:
    """It is counted by its status, and its duration by the class of its error."""
    with measuring() as measured:
        with service(tmp_path, TABLE, TURN_TIMEOUT_S=0.3) as url, pytest.raises(AgentError):
            AgentClient(url, agent).invoke(QUESTION)
        assert measured.counts("agent.turns") == {(agent, status): 1}
        ((error, name),) = measured.counts("gen_ai.invoke_agent.duration")
        assert name == agent
        assert error.endswith("Error")


def test_a_turn_that_waits(tmp_path: Path) -> None:
    """A question to a person is a status of its own, and no error."""
    with measuring() as measured, service(tmp_path) as url:
        list(AgentClient(url, "interrupt").stream("Book a table"))
        until(lambda: measured.counts("agent.turns"))
        assert measured.counts("agent.turns") == {("interrupt", "waiting"): 1}
        assert measured.counts("gen_ai.invoke_agent.duration") == {("interrupt",): 1}


def test_other_frameworks() -> None:
    """Spans of the GenAI conventions are counted as those of LangChain are, a call that two record once."""
    with measuring() as measured:
        tracer = measured.provider.get_tracer("their.framework")
        call = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "aws.bedrock", "gen_ai.request.model": "m"}
        with tracer.start_as_current_span(
            "invoke_agent a", attributes={"gen_ai.operation.name": "invoke_agent"}
        ) as run:
            run.set_attribute("gen_ai.agent.name", "a")
            with tracer.start_as_current_span("chat m", attributes=call) as span:
                span.set_attributes({"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 3})
            with tracer.start_as_current_span("t", attributes={"gen_ai.operation.name": "execute_tool"}) as span:
                span.set_status(StatusCode.ERROR)
        assert measured.counts("gen_ai.invoke_agent.duration") == {("a",): 1}
        assert measured.counts("agent.turns") == {}
        assert measured.counts("gen_ai.client.operation.duration") == {("chat", "aws.bedrock", "m"): 1}
        tokens = {key[-1]: point.sum for key, point in measured.points("gen_ai.client.token.usage").items()}
        assert tokens == {"input": 7, "output": 3}
        assert measured.counts("gen_ai.execute_tool.duration") == {("_OTHER", "t"): 1}


def test_costs_add_up() -> None:
    """What calls cost is a counter by model, and absent where nothing is known."""
    with measuring() as measured:
        for cost in (0.25, 0.5):
            known = {"llm.model_name": "m", "llm.provider": "google", "llm.cost.total": cost}
            with telemetry.span("m", kind="LLM", **known):
                pass
        with telemetry.span("m", kind="LLM"):
            pass
        assert measured.counts("agent.cost") == {("gcp.gen_ai", "m"): 0.75}


def test_no_text_makes_endless_series() -> None:
    """Beyond a hundred values of an attribute they are counted together; the first ones keep their names."""
    with measuring() as measured:
        for at in range(150):
            with telemetry.span(f"tool {at}", kind="TOOL"):
                pass
        counts = measured.counts("gen_ai.execute_tool.duration")
        assert len(counts) == 101
        assert counts["_OTHER",] == 50


def test_no_secret_leaves() -> None:
    """A name that holds a secret is redacted as in a span, and no id or user is an attribute."""
    secret = "sk-" + "a1B2" * 10
    with measuring() as measured:
        with (
            telemetry.turn("support", session_id="thread-7", user_id="ada"),
            telemetry.span(f"tool {secret}", kind="TOOL"),
        ):
            pass
        said = str([metric.to_json() for metric in measured.metrics().values()])
    assert "[redacted" in said
    assert not any(text in said for text in (secret, "thread-7", "ada"))


def test_scores() -> None:
    """Numbers and booleans are values of a histogram by name; categories and deletions are none."""
    with measuring(Settings.model_validate(DUMMY)) as measured:
        with telemetry.span("work"):
            for value in (True, 0, 0.5, "good", None):
                telemetry.score("thumbs", value)
        (point,) = measured.points("agent.score").values()
        assert (point.count, point.sum) == (3, 1.5)


@pytest.mark.parametrize("recorder", RECORDERS)
def test_what_is_recorded_is_what_the_table_says(tmp_path: Path, recorder: str) -> None:
    """Each metric of turns that succeed and fail has the unit, the boundaries and only the attributes of its row."""
    with measuring(of(recorder)) as measured:
        turn(tmp_path, measured)
        with service(tmp_path, TABLE) as url, pytest.raises(AgentError):
            AgentClient(url, "broken_node").invoke(QUESTION)
        until(lambda: not measured.spans.open)
        table = {each.name: each for each in (*RECORDED, *(instrument for instrument, _ in FIGURES))}
        found = measured.metrics()
        assert {"agent.turns", "gen_ai.client.token.usage", "gen_ai.execute_tool.duration"} <= found.keys()
        for name, metric in found.items():
            row = table[name]
            assert (metric.unit, metric.description) == (row.unit, row.description)
            for point in metric.data.data_points:
                assert set(point.attributes or {}) <= set(row.attributes)
                if isinstance(point, HistogramDataPoint):
                    assert tuple(point.explicit_bounds) == row.boundaries
