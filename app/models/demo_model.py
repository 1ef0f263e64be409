"""A small deterministic chat model of our own, so that everything runs without a key."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from textwrap import shorten
from typing import Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

MAX_STORY = 5_000
MAX_ATTEMPTS = 2
MAX_CALLS = 8

# Every repetition is bounded: a message may be long, and the event loop waits.
NUMBER = r"\({0,9}-?(?<!\d)\d{1,30}(?:\.\d{1,30})?\){0,9}"
EXPRESSION = rf"{NUMBER}(?:\s{{0,9}}(?:\*\*|//|[-+*/%^])\s{{0,9}}{NUMBER}){{1,50}}"
TIME = r"what time is it(?: in [\w/+-]{1,50})?"

RULES: tuple[tuple[str, str], ...] = (
    ("calculator", rf"(?P<expression>{EXPRESSION})"),
    ("current_time", r"what time is it(?: in (?P<timezone>[\w/+-]{1,50}))?"),
    ("transfer_to_math", rf"(?P<task>{EXPRESSION})"),
    ("transfer_to_clock", rf"(?P<task>{TIME})"),
    ("search", r"(?:search for|look up) (?P<query>.{1,200}?)(?=,? and (?:search|look|read)|[.?!,\n]|$)"),
    ("list_files", r"\b(?:which|list|what)(?: (?:of|my|the)){0,2} files\b"),
    ("read_file", r"\bread (?:the |my )?file (?P<name>[^?!,\n]{1,200}?)(?=[?!,\n]|\.?$)"),
    ("read_passage", r"\bread (?P<title>.{1,200}?)(?=,? and (?:search|look|read)|[.?!,\n]|$)"),
    ("long_work", r"work for (?P<seconds>\d{1,4}(?:\.\d{1,3})?) seconds"),
    ("python_repl", r"`{1,3}(?:python\n|py\n|\n)?(?P<code>[^`]{1,8000})`{1,3}"),
    ("book_table", r"book (?:a )?table(?: for (?P<people>\d{1,4}))?(?: at (?P<time>[\d:]{1,5}))?"),
)
"""Tool -> what a person says to have it called, once for every match; a named group is an argument."""

TALE = """
Once there was a small river that wanted to know where it was going. It asked the stones, but the stones
had never moved. It asked the fish, but the fish only knew the way back. It asked the old mill, and the mill
said that it had turned ten thousand times without leaving its place. So the river kept walking. It passed
gardens and gave them water, it passed towns and gave them mirrors, it passed a field where children had
built a dam and waited politely until evening. At night it counted the lamps along its banks. In the morning
it met a second river, wider and slower, and they went on together without deciding whose name to keep.
At last the land grew flat and the air tasted of salt. The sea did not say anything grand. It only made room,
and the river understood that it had been arriving all along. Then a cloud came by and asked for a drop.
"""

INTRODUCTION = (
    "I am the demo model: a few rules, not a language model. I can calculate, tell the time, "
    "tell a long story and remember your name in this conversation."
)


class DemoError(RuntimeError):
    """The demo model was asked to fail."""


@dataclass(frozen=True)
class Reply:
    """What the model is about to say: words, or calls, and the word before which it fails."""

    pieces: list[str]
    calls: list[ToolCall]
    input_tokens: int
    fail_after: int | None

    @property
    def usage(self) -> UsageMetadata:
        """The words read and said; a call counts as one."""
        said = len(self.pieces) + len(self.calls)
        return UsageMetadata(input_tokens=self.input_tokens, output_tokens=said, total_tokens=self.input_tokens + said)


class DemoModel(BaseChatModel):
    """A chat model that answers by rule, word by word, always the same.

    It calls the tools it is bound to where `RULES` match the person's last message, says what they answered,
    and calls a tool that asks to be tried again once more. `/fail` in that message makes it raise
    `DemoError` before its first word, `/fail-after 3` after its third; a shorter answer is given whole.
    """

    pace_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "demo"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "demo", "pace_s": self.pace_s}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:  # noqa: ARG002 — the base's signature
        return LangSmithParams(ls_provider="demo", ls_model_name="demo", ls_model_type="chat")

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model, able to call these tools."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return generate_from_stream(self._stream(messages, *args, **kwargs))

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        chunks = [chunk async for chunk in self._astream(messages, *args, **kwargs)]
        return generate_from_stream(iter(chunks))

    def _stream(
        self, messages: list[BaseMessage], *_: Any, tools: Sequence[dict[str, Any]] = (), **__: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in chunks_of(reply_to(messages, names_of(tools))):
            time.sleep(self.pace_s)
            yield chunk

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, tools: Sequence[dict[str, Any]] = (), **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in chunks_of(reply_to(messages, names_of(tools))):
            await asyncio.sleep(self.pace_s)
            yield chunk


def names_of(tools: Sequence[dict[str, Any]]) -> set[str]:
    """The names of tools given in OpenAI's shape."""
    return {tool["function"]["name"] for tool in tools}


def chunks_of(reply: Reply) -> Iterator[ChatGenerationChunk]:
    """The reply as a stream: a chunk a word, then one with the calls, the usage and the reason to stop."""
    for number, piece in enumerate(reply.pieces):
        if number == reply.fail_after:
            raise DemoError(f"The demo model failed after {number} words, as it was asked to.")
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    yield ChatGenerationChunk(message=last_chunk(reply))


def last_chunk(reply: Reply) -> AIMessageChunk:
    """What closes the stream."""
    return AIMessageChunk(
        content="",
        tool_call_chunks=[
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
            for index, call in enumerate(reply.calls)
        ],
        usage_metadata=reply.usage,
        response_metadata={"model_name": "demo", "finish_reason": "tool_calls" if reply.calls else "stop"},
        chunk_position="last",
    )


def reply_to(messages: list[BaseMessage], tools: set[str]) -> Reply:
    """The one reply to these messages, with these tools at hand."""
    turn = turn_of(messages)
    fail_after = failure_in(turn[0].text)
    if fail_after == 0:
        raise DemoError("The demo model failed before its first word, as it was asked to.")
    calls = calls_for(turn, tools)
    text = "" if calls else answer(messages, turn)
    read = sum(len(message.text.split()) for message in messages)
    return Reply(re.findall(r"\S+\s*", text), calls, read, fail_after)


def turn_of(messages: list[BaseMessage]) -> list[BaseMessage]:
    """The messages from the person's last one on."""
    for start in range(len(messages) - 1, -1, -1):
        if isinstance(messages[start], HumanMessage):
            return messages[start:]
    return [HumanMessage(""), *messages]


def failure_in(text: str) -> int | None:
    """The number of words after which the person wants a failure."""
    if match := re.search(r"/fail-after (\d{1,6})", text):
        return int(match[1])
    return 0 if "/fail" in text else None


def calls_for(turn: list[BaseMessage], tools: set[str]) -> list[ToolCall]:
    """The calls still to be made in this turn."""
    asked = [call for message in turn if isinstance(message, AIMessage) for call in message.tool_calls]
    made = [(call["name"], call["args"]) for call in asked]
    again = {message.tool_call_id for message in trailing_results(turn) if wants_another_try(message)}
    retried = [(c["name"], c["args"]) for c in asked if c["id"] in again]
    wanted = [w for w in wanted_in(turn[0].text, tools) if w not in made]
    return [
        ToolCall(name=name, args=args, id=f"call_{uuid4().hex}", type="tool_call")
        for name, args in wanted + [call for call in retried if made.count(call) < MAX_ATTEMPTS]
    ]


def wanted_in(text: str, tools: set[str]) -> list[tuple[str, dict[str, str]]]:
    """The calls that the person's words ask for, each once."""
    matches = ((tool, m) for tool, rule in RULES if tool in tools for m in re.finditer(rule, text, re.IGNORECASE))
    calls = [(tool, given(match)) for tool, match in islice(matches, MAX_CALLS)]
    return [call for number, call in enumerate(calls) if call not in calls[:number]]


def given(match: re.Match[str]) -> dict[str, str]:
    """The arguments that a rule found."""
    return {name: value for name, value in match.groupdict().items() if value}


def trailing_results(turn: list[BaseMessage]) -> list[ToolMessage]:
    """The results that came in since the model last spoke."""
    spoke = max((i for i, message in enumerate(turn) if isinstance(message, AIMessage)), default=-1)
    return [message for message in turn[spoke + 1 :] if isinstance(message, ToolMessage)]


def failed(message: ToolMessage) -> bool:
    """Whether the tool failed; over the wire only its words say so."""
    return message.status == "error" or message.text.startswith("Error: ")


def wants_another_try(message: ToolMessage) -> bool:
    """Whether the tool failed and asks to be tried again."""
    return failed(message) and "try again" in message.text.lower()


def answer(messages: list[BaseMessage], turn: list[BaseMessage]) -> str:
    """What the model says in words."""
    if found := results(turn):
        return "\n".join(result_in_words(tool, result) for (tool, _), result in found.items())
    return story(turn[0].text) or name_in_words(messages, turn[0].text) or small_talk(turn[0].text)


def results(turn: list[BaseMessage]) -> dict[tuple[str, str], ToolMessage]:
    """The last result of each tool and its arguments."""
    calls = {call["id"]: call for m in turn if isinstance(m, AIMessage) for call in m.tool_calls}
    answers = [(calls[m.tool_call_id], m) for m in turn if isinstance(m, ToolMessage)]
    return {(call["name"], json.dumps(call["args"])): message for call, message in answers}


def result_in_words(tool: str, message: ToolMessage) -> str:
    """What a tool answered, or that it failed."""
    verb = "failed" if failed(message) else "says"
    return f"The {tool} tool {verb}: {message.text.removeprefix('Error: ')}"


def story(text: str) -> str | None:
    """The tale, as long as the person wants it, if they want one."""
    if not re.search(r"\bstory\b", text, re.IGNORECASE):
        return None
    length = re.search(r"(?<!\d)(\d{1,6}) words", text)
    words = int(length[1]) if length else 60 if "long" not in text.lower() else 240
    return " ".join(islice(cycle(TALE.split()), min(words, MAX_STORY)))


def name_in_words(messages: list[BaseMessage], text: str) -> str | None:
    """The person's name, if they say it or ask for it."""
    if told := re.search(r"my name is (\w{1,50})", text, re.IGNORECASE):
        return f"Nice to meet you, {told[1]}. I will remember your name in this conversation."
    if not re.search(r"what(?:'s| is) my name", text, re.IGNORECASE):
        return None
    said = " ".join(message.text for message in messages if isinstance(message, HumanMessage))
    names = re.findall(r"my name is (\w{1,50})", said, re.IGNORECASE)
    return f"Your name is {names[-1]}." if names else "You have not told me your name yet."


def small_talk(text: str) -> str:
    """An honest answer to everything else."""
    if re.match(r"\s*(?:hi|hello|hey|good (?:morning|evening)|who are you)\b", text, re.IGNORECASE):
        return f"Hello! {INTRODUCTION}"
    return f'You said: "{shorten(text, 200)}" I have no rule for that. {INTRODUCTION}'
