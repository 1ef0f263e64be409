"""A program's values are the same with tracing as without, whatever they are and whoever records."""

import io
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from telemetry.settings import Settings
from telemetry.testing import Recorded, recording
from tests.telemetry.test_plain_data import CONSUMABLE

pytestmark = pytest.mark.usefixtures("langchain")


class State(TypedDict):
    question: Any
    found: Any


def graph(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile(name="graph")


def in_a_state(value: Any) -> Any:
    return graph(lambda _: {"found": value}).invoke({"question": "?"})["found"]


def in_a_command(value: Any) -> Any:
    return graph(lambda _: Command(update={"found": value})).invoke({"question": "?"})["found"]


def as_an_input(value: Any) -> Any:
    return graph(lambda _: {"found": 1}).invoke({"question": value})["question"]


def in_a_dict(value: Any) -> Any:
    return RunnableLambda(lambda _: {"found": [value]}).invoke("?")["found"][0]


def out_of_a_tool(value: Any) -> Any:
    @tool
    def find(word: str) -> Any:
        """Find it."""
        return {"found": value}

    return find.invoke({"word": "it"})["found"]


def beside_a_message(value: Any) -> Any:
    call = ToolCall(name="find", args={"in": value}, id="c-1", type="tool_call")
    step = RunnableLambda(lambda _: {"messages": [AIMessage("", tool_calls=[call])]})
    step.invoke({"messages": [HumanMessage("?")]})
    return value


def in_metadata(value: Any) -> Any:
    RunnableLambda(lambda each: each).invoke("?", {"metadata": {"found": value}})
    return value


def in_a_document(value: Any) -> Any:
    class Found(BaseRetriever):
        def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
            return [Document(query, metadata={"found": value})]

    return Found().invoke("?")[0].metadata["found"]


def in_a_prompt(value: Any) -> Any:
    ChatPromptTemplate.from_messages([("user", "say {what}")]).invoke({"what": value})
    return value


PLACES = (
    in_a_state,
    in_a_command,
    as_an_input,
    in_a_dict,
    out_of_a_tool,
    beside_a_message,
    in_metadata,
    in_a_document,
    in_a_prompt,
)


@pytest.fixture(params=["full", "metadata-only", "hidden"])
def traced(request: pytest.FixtureRequest, langchain: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    if request.param == "hidden":
        monkeypatch.setenv("OPENINFERENCE_HIDE_INPUTS", "true")
        monkeypatch.setenv("OPENINFERENCE_HIDE_OUTPUTS", "true")
    content = "metadata-only" if request.param == "metadata-only" else "full"
    with recording(Settings.model_construct(langchain=langchain, content=content)) as spans:
        yield spans


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_consumed(traced: Recorded, place: Callable[[Any], Any]) -> None:
    """Whatever can be read only once is whole afterwards, wherever a program puts it."""
    for name, (make, read) in CONSUMABLE.items():
        value = make()
        assert place(value) is value, name
        assert read(value) == read(make()), name
    assert traced.settled()


@pytest.mark.parametrize("place", PLACES)
def test_nothing_endless_is_followed(spans: Recorded, place: Callable[[Any], Any]) -> None:
    """An iterator without end is at its beginning afterwards."""
    value = itertools.count()
    assert next(place(value)) == 0
    assert spans.settled()


class Shy:
    """Raises when it is looked at."""

    def __repr__(self) -> str:
        raise AssertionError("looked at")

    __str__ = __len__ = __bool__ = __iter__ = __repr__  # pyright: ignore[reportAssignmentType] - none is to be called

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python and LangChain themselves ask of any object
            raise AttributeError(name)
        raise AssertionError(f"asked for {name}")


@pytest.mark.parametrize("place", [in_a_state, in_a_command, as_an_input, in_a_dict, in_metadata])
def test_nothing_is_computed(spans: Recorded, caplog: pytest.LogCaptureFixture, place: Callable[[Any], Any]) -> None:
    """An object that computes, blocks or raises when it is looked at is not looked at, and nobody hears of it."""
    value = Shy()
    assert place(value) is value
    assert spans.settled()
    assert caplog.records == []


def test_a_large_value_costs_little(spans: Recorded) -> None:
    """A list of a hundred megabytes delays a run by less than half a second."""
    value = [{"number": at, "text": "x" * 20} for at in range(400_000)]
    start = time.process_time()
    assert in_a_state(value) is value
    assert time.process_time() - start < 2
    assert "left out" in str([span.attributes for span in spans.settled()])


def test_what_is_not_read_is_named(spans: Recorded) -> None:
    """A span says of what type a value was that it does not show."""
    in_a_state(io.BytesIO(b"abc"))
    (root,) = [span for span in spans.settled() if span.parent is None]
    assert (root.attributes or {})["output.value"] == '{"question":"?","found":"<_io.BytesIO>"}'
