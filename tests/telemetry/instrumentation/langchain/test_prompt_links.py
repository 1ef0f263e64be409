"""Which model calls are linked to a version of a prompt of Langfuse."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langfuse.api import Prompt_Text
from langfuse.model import TextPromptClient
from langgraph.graph import START, MessagesState, StateGraph

from telemetry.settings import Settings
from telemetry.testing import Recorded, recording

NAME, VERSION = "langfuse.observation.prompt.name", "langfuse.observation.prompt.version"


@pytest.fixture(params=["openinference", "recorder"])
def spans(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    with recording(Settings.model_construct(langchain=request.param)) as spans:
        yield spans


def prompt_of_langfuse(version: int = 3, **more: Any) -> TextPromptClient:
    """A prompt as the SDK returns it."""
    fields = {"name": "greet", "version": version, "prompt": "Greet {{who}}", "labels": [], "tags": [], "config": {}}
    return TextPromptClient(Prompt_Text(type="text", **fields), **more)


def model() -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage("Hello"), AIMessage("Bye")]))


def template(version: int = 3, **more: Any) -> ChatPromptTemplate:
    """A template with a prompt of Langfuse in its metadata, as Langfuse's documentation has it."""
    made = ChatPromptTemplate.from_messages([("user", "Greet {who}")])
    made.metadata = {"langfuse_prompt": prompt_of_langfuse(version, **more)}
    return made


def links(spans: Recorded) -> list[tuple[Any, Any]]:
    """The prompts of the model calls, in the order of their ends."""
    attributes = [span.attributes or {} for span in spans.settled()]
    called = [each for each in attributes if each.get("openinference.span.kind") == "LLM"]
    return [(each.get(NAME), each.get(VERSION)) for each in called]


def test_a_template_links_the_call_after_it(spans: Recorded) -> None:
    """The generation has the prompt's name and version; a later call in the same chain has not."""
    talker = model()
    again = RunnableLambda(lambda message: [message])
    (template() | talker | again | talker).invoke({"who": "Ada"})
    assert links(spans) == [("greet", 3), (None, None)]


def test_each_template_links_its_own_call(spans: Recorded) -> None:
    """Two prompts in one chain belong to one call each."""
    talker = model()

    def name_again(message: AIMessage) -> dict[str, str]:
        return {"who": message.text}

    again = RunnableLambda(name_again)
    (template(3) | talker | again | template(4) | talker).invoke({"who": "Ada"})
    assert links(spans) == [("greet", 3), ("greet", 4)]


def test_a_call_within_a_step_is_linked(spans: Recorded) -> None:
    """Also where the model is called by a function, or by something that tries again."""
    talker = model()
    (template() | talker.with_retry()).invoke({"who": "Ada"})

    def call(value: PromptValue) -> BaseMessage:
        return talker.invoke(value)

    (template() | RunnableLambda(call)).invoke({"who": "Ada"})
    assert links(spans) == [("greet", 3), ("greet", 3)]


def test_a_config_links_all_calls_below_it(spans: Recorded) -> None:
    """In the metadata of a graph's config it holds for each of its model calls."""
    talker = model()
    graph = StateGraph(MessagesState)

    def answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [talker.invoke(state["messages"])]}

    graph.add_node("first", answer)
    graph.add_node("second", answer)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    config: Any = {"metadata": {"langfuse_prompt": prompt_of_langfuse()}}
    graph.compile().invoke({"messages": [HumanMessage("Hi")]}, config)
    assert links(spans) == [("greet", 3), ("greet", 3)]


def test_a_fallback_is_no_version(spans: Recorded) -> None:
    """What the program said itself, because Langfuse did not answer, is not linked."""
    (template(0, is_fallback=True) | model()).invoke({"who": "Ada"})
    (ChatPromptTemplate.from_messages([("user", "Greet {who}")]) | model()).invoke({"who": "Ada"})
    assert links(spans) == [(None, None), (None, None)]
