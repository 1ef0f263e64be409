"""The examples of other agent frameworks, each with its own instrumentor beside `telemetry.configure`."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.adoption.harness import Ran, run_example
from tests.adoption.model_server import INPUT_TOKENS, OUTPUT_TOKENS, Call, Reply, Say

QUESTION, ANSWER = "What is 12*34?", "It is 408."
CALL, SAY, THINK = Call("calculator", {"expression": "12*34"}), Say(ANSWER), Say(ANSWER, "Multiply.")


def dspy_says(**fields: str) -> Say:
    """In the format that DSPy's prompt asks for."""
    return Say(
        "\n\n".join([*(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items()), "[[ ## completed ## ]]"])
    )


DSPY = (
    dspy_says(next_thought="x", next_tool_name="calculator", next_tool_args='{"expression": "12*34"}'),
    dspy_says(next_thought="x", next_tool_name="finish", next_tool_args="{}"),
    dspy_says(reasoning="x", answer=ANSWER),
)
SEMANTIC = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
}
# The framework's module, what the model answers, what the trace is called, and the tools that are used.
EXAMPLES: dict[str, tuple[str, tuple[Reply, ...], str, list[str]]] = {
    "openai_client": ("openai", (CALL, SAY, THINK), "sums", ["calculator"]),
    "openai_agents": ("agents", (CALL, THINK), "clerk", ["calculator"]),
    "anthropic_client": ("anthropic", (CALL, THINK), "clerk", ["calculator"]),
    "pydantic_agent": ("pydantic_ai", (CALL, SAY), "clerk", ["execute_tool calculator"]),
    "llamaindex_agent": ("llama_index", (CALL, SAY), "FunctionAgent.run", ["FunctionTool.acall"]),
    "smolagents_agent": (
        "smolagents",
        (CALL, Call("final_answer", {"answer": ANSWER})),
        "clerk.run",
        ["SimpleTool", "FinalAnswerTool"],
    ),
    "dspy_module": ("dspy", DSPY, "ReAct.forward", ["calculator.__call__", "finish.__call__"]),
    "crewai_crew": ("crewai", (CALL, SAY), "sums.kickoff", ["calculator.run"]),
    "google_adk": ("google.adk", (CALL, SAY), "clerk", ["execute_tool calculator"]),
}
# Its instrumentor records no tokens.
UNCOUNTED = ("dspy_module",)


def installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def here(name: str) -> bool:
    """Whether an example's packages are installed; the client of OpenAI is a part of many frameworks."""
    text = (Path(__file__).parents[2] / "docs" / "examples" / "frameworks" / f"{name}.py").read_text()
    needed = [line.split()[1] for line in text.splitlines() if line.startswith("from openinference")]
    return installed(EXAMPLES[name][0]) and all(map(installed, needed))


@pytest.fixture(scope="module", params=[name for name in EXAMPLES if here(name)])
def example(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ran(example: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_example(example, EXAMPLES[example][1], tmp_path_factory.mktemp("spool"), **SEMANTIC)


def test_one_trace_with_question_answer_session_and_user(ran: Ran, example: str) -> None:
    """Each question is one trace, called by its agent, and the program's answers are the same without tracing."""
    answers = ran.answer.splitlines()
    assert set(answers) == {ANSWER}
    assert [trace.name for trace in ran.traces] == [EXAMPLES[example][2]] * len(answers)
    assert ran.orphans == []
    for trace in ran.traces:
        assert trace.root
        assert (trace.root.input, trace.root.output) == (QUESTION, ANSWER)
        spans = [each.span.attributes for each in trace.observations]
        assert {attributes.get("user.id") for attributes in spans} == {"ada"}
        assert len({attributes.get("session.id") for attributes in spans}) == 1


def test_model_calls_are_generations_with_all_messages_and_tokens(ran: Ran, example: str) -> None:
    """One for each request of the model, with the system's message and its answer; nothing else counts tokens."""
    replies = EXAMPLES[example][1]
    calls = [call for trace in ran.traces for call in trace.of("generation")]
    assert len(calls) == len(replies)
    for call, reply in zip(calls, replies, strict=True):
        counted = (call.usage.get("input"), call.usage.get("output"))
        assert counted == ((None, None) if example in UNCOUNTED else (INPUT_TOKENS, OUTPUT_TOKENS))
        asked = call.input["messages"] if isinstance(call.input, dict) else call.input
        assert asked[0]["role"] in ("system", "developer")
        assert "12*34" in str(asked[1])
        said = call.output if isinstance(call.output, list) else [call.output]
        if isinstance(reply, Call):
            ((name, arguments),) = [
                (each["function"]["name"], each["function"]["arguments"])
                for message in said
                for each in message.get("tool_calls", [])
            ]
            assert (name, str(*reply.arguments.values()) in arguments) == (reply.name, True)
        else:
            assert said[-1]["role"] == "assistant"
            assert reply.text in str(said[-1]["content"]).replace("\\n", "\n").replace("\\\\", "\\") or ANSWER in str(
                said
            )
            assert reply.thought in str(said)
    for trace in ran.traces:
        assert [each.span.name for each in trace.observations if each.usage and each.type != "generation"] == []


def test_tools_are_tools_with_their_arguments(ran: Ran, example: str) -> None:
    """A tool is called by its arguments' names, and its result is shown."""
    tools = [tool for trace in ran.traces for tool in trace.of("tool")]
    assert [tool.span.name for tool in tools] == EXAMPLES[example][3]
    assert tools[0].input == {"expression": "12*34"}
    assert "408" in str(tools[0].output)


def test_there_is_no_http_span_beside_a_model_call(ran: Ran) -> None:
    """A model's request adds nothing to what its span says."""
    names = [each.span.name for trace in ran.traces for each in trace.observations]
    assert [name for name in names if name.startswith(("POST", "GET"))] == []
