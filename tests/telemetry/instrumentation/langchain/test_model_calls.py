"""What a model's span says beside its words: how it failed, what it had said, which response it was."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from openinference.instrumentation import using_attributes

from telemetry.export import formats
from telemetry.export.otlp import from_sdk
from telemetry.testing import Recorded

pytestmark = pytest.mark.usefixtures("langchain")


class Scripted(BaseChatModel):
    """Answers with a message, or streams chunks and breaks."""

    answer: Any = None
    chunks: Any = ()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:  # noqa: ARG002 - the signature of the base
        if self.answer is None:
            raise ConnectionError("nobody there")
        return ChatResult(generations=[ChatGeneration(message=self.answer)])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:  # noqa: ARG002 - see above
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk)
        raise ConnectionError("peer closed")


def call_chunk(name: str | None, args: str) -> AIMessageChunk:
    fragment: Any = {"name": name, "args": args, "id": "c-1" if name else None, "index": 0}
    return AIMessageChunk(content="", tool_call_chunks=[fragment])


def spoken(content: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content)


def beside(**fields: str) -> AIMessageChunk:
    return AIMessageChunk(content="", additional_kwargs=dict(fields))


BROKEN: dict[str, tuple[list[AIMessageChunk], list[str]]] = {
    "text": ([spoken("half an"), spoken(" answer")], ["half an answer"]),
    "a tool call": ([call_chunk("look_up", '{"q": '), call_chunk(None, '"tru')], ["look_up", "tru"]),
    "thinking": (
        [spoken([{"type": "thinking", "thinking": "let me see", "index": 0}])],
        ["let me see"],
    ),
    "reasoning beside the words": (
        [beside(reasoning_content="let me "), spoken("half"), beside(reasoning_content="see")],
        ["let me see", "half"],
    ),
    "a refusal": ([beside(refusal="I will not")], ["I will not"]),
    "text, then a call": (
        [spoken("Let me look."), call_chunk("look_up", "{")],
        ["Let me look.", "look_up"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_that_breaks_keeps_what_was_said(spans: Recorded, name: str) -> None:
    """Text, fragments of tool calls and thinking that came are shown, in every shape."""
    chunks, words = BROKEN[name]
    with pytest.raises(ConnectionError):
        list(Scripted(chunks=chunks).stream("q"))
    (span,) = spans.settled()
    for attributes in (dict(span.attributes or {}), formats.langfuse(from_sdk(span)).attributes):
        assert all(word in str(attributes) for word in words), attributes
    assert formats.langfuse(from_sdk(span)).status == "ERROR"


def test_a_failed_call_has_no_output(spans: Recorded) -> None:
    """An empty result is no answer; the error is named with its module."""

    class OddError(Exception):
        pass

    class Odd(Scripted):
        def _generate(self, *_: Any, **__: Any) -> ChatResult:
            raise OddError("no")

    for model in (Scripted(), Odd()):
        with pytest.raises((ConnectionError, OddError)):
            model.invoke("q")
    first, second = spans.settled()
    assert not [key for span in (first, second) for key in span.attributes or {} if key.startswith("output")]
    kinds = [(span.events[0].attributes or {})["exception.type"] for span in (first, second)]
    assert kinds[0] == "ConnectionError"
    assert str(kinds[1]).startswith(__name__)
    assert str(kinds[1]).endswith("OddError")


def test_a_response_can_be_found_at_its_provider(spans: Recorded) -> None:
    """Its id, its fingerprint and its service tier are kept."""
    about = {"id": "chatcmpl-1", "system_fingerprint": "fp-1", "service_tier": "default", "model_name": "m-1"}
    Scripted(answer=AIMessage("fine", response_metadata=about)).invoke("q")
    said = spans.settled()[0].attributes or {}
    assert said["gen_ai.response.id"] == "chatcmpl-1"
    assert said["openai.response.system_fingerprint"] == "fp-1"
    assert said["openai.response.service_tier"] == "default"


def test_functions_that_are_bound_are_shown(spans: Recorded) -> None:
    """Definitions in OpenAI's former way stand where those of tools stand."""
    function = {"name": "look_up", "parameters": {"type": "object"}}
    Scripted(answer=AIMessage("fine")).bind(functions=[function]).invoke("q")
    said = spans.settled()[0].attributes or {}
    shown = json.loads(str(said["llm.tools.0.tool.json_schema"]))
    assert shown == {"type": "function", "function": function}
    assert "look_up" in str(formats.langfuse(from_sdk(spans.settled()[0])).attributes["langfuse.observation.input"])


def test_metadata_around_is_merged(spans: Recorded) -> None:
    """What OpenInference's context says and what a run's config says stand side by side; the run's wins."""
    with using_attributes(metadata={"tenant": "a", "stage": "outer"}, user_id="ada"):
        Scripted(answer=AIMessage("fine")).invoke("q", {"metadata": {"stage": "inner"}})
    said = spans.settled()[0].attributes or {}
    merged = json.loads(str(said["metadata"]))
    assert (merged["tenant"], merged["stage"]) == ("a", "inner")
    assert said["user.id"] == "ada"


BESIDE: dict[str, tuple[dict[str, Any], Any]] = {
    "reasoning_content": ({"reasoning_content": "because 6*7"}, "because 6*7"),
    "refusal": ({"refusal": "I must not"}, "I must not"),
    "function_call": ({"function_call": {"name": "look_up", "arguments": "{"}}, {"name": "look_up", "arguments": "{"}),
    "audio": ({"audio": {"id": "a", "data": "UklGRg==", "transcript": "spoken"}}, {"id": "a", "transcript": "spoken"}),
}


@pytest.mark.parametrize("field", BESIDE)
def test_what_a_model_says_beside_its_content_is_shown(spans: Recorded, field: str) -> None:
    """Reasoning, refusals, legacy function calls and transcripts are part of the answer; what says nothing is not."""
    kwargs, shown = BESIDE[field]
    Scripted(answer=AIMessage("", additional_kwargs={"tool_call_chunks": None, **kwargs})).invoke("q")
    answer = formats.langfuse(from_sdk(spans.settled()[0])).attributes["langfuse.observation.output"]
    assert json.loads(str(answer)) == {"role": "assistant", "content": "", field: shown}


def test_what_was_said_beside_is_read_anew(spans: Recorded) -> None:
    """A message that gets its refusal after it was first seen is shown with it."""
    message = AIMessage("no", id="m-1")
    Scripted(answer=AIMessage("fine")).invoke([message])
    message.additional_kwargs["refusal"] = "I must not"
    Scripted(answer=AIMessage("fine")).invoke([message.model_copy()])
    asked = [str((span.attributes or {})["input.value"]) for span in spans.settled()]
    assert ["I must not" in each for each in asked] == [False, True]
