"""A small deterministic chat model, so that everything runs without a key."""

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

from app.messages import since_last_human

MAX_STORY = 20_000
MAX_ATTEMPTS = 2
MAX_CALLS = 8

# Every repetition is bounded, because a message may be long and the event loop waits.
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
"""Tool -> the words that have it called, once for every match; a named group is an argument."""

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
    """A reply of the model: words or tool calls, and the word before which it fails."""

    pieces: list[str]
    calls: list[ToolCall]
    input_tokens: int
    fail_after: int | None

    @property
    def usage(self) -> UsageMetadata:
        """The words read and written; a tool call counts as one."""
        written = len(self.pieces) + len(self.calls)
        return UsageMetadata(
            input_tokens=self.input_tokens, output_tokens=written, total_tokens=self.input_tokens + written
        )


class DemoModel(BaseChatModel):
    """A deterministic chat model that follows rules and answers word by word.

    It calls its tools if `RULES` match the last human message, states their results, and repeats a call once if the
    tool asks for that. `/fail` in that message makes it raise
    `DemoError` before its first word, `/fail-after 3` after its third; a shorter answer is complete.
    """

    pace_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "demo"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "demo", "pace_s": self.pace_s}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:  # noqa: ARG002 - the base's signature
        return LangSmithParams(ls_provider="demo", ls_model_name="demo", ls_model_type="chat")

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model, able to call these tools."""
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
    """Return the names of tools in OpenAI's format."""
    return {tool["function"]["name"] for tool in tools}


def chunks_of(reply: Reply) -> Iterator[ChatGenerationChunk]:
    """Yield the reply as a stream: one chunk per word, then one with the calls, the usage and the finish reason."""
    for number, piece in enumerate(reply.pieces):
        if number == reply.fail_after:
            raise DemoError(f"The demo model failed after {number} words, as requested.")
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    yield ChatGenerationChunk(message=last_chunk(reply))


def last_chunk(reply: Reply) -> AIMessageChunk:
    """Return the last chunk of the stream."""
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
    """Return the reply to these messages, with these tools."""
    turn = turn_of(messages)
    fail_after = failure_in(turn[0].text)
    if fail_after == 0:
        raise DemoError("The demo model failed before its first word, as requested.")
    calls = calls_for(turn, tools)
    text = "" if calls else answer(messages, turn)
    input_tokens = sum(len(message.text.split()) for message in messages)
    return Reply(re.findall(r"\S+\s*", text), calls, input_tokens, fail_after)


def turn_of(messages: list[BaseMessage]) -> list[BaseMessage]:
    """Return the messages from the last human one on, after an empty one if there is none."""
    turn = since_last_human(messages)
    return turn if turn and isinstance(turn[0], HumanMessage) else [HumanMessage(""), *turn]


def failure_in(text: str) -> int | None:
    """Return the number of words after which the message asks for a failure."""
    if match := re.search(r"/fail-after (\d{1,6})", text):
        return int(match[1])
    return 0 if "/fail" in text else None


def calls_for(turn: list[BaseMessage], tools: set[str]) -> list[ToolCall]:
    """Return the calls that remain in this turn."""
    earlier = [call for message in turn if isinstance(message, AIMessage) for call in message.tool_calls]
    made = [(call["name"], call["args"]) for call in earlier]
    retry_ids = {message.tool_call_id for message in trailing_results(turn) if wants_another_try(message)}
    retried = [(call["name"], call["args"]) for call in earlier if call["id"] in retry_ids]
    wanted = [call for call in wanted_in(turn[0].text, tools) if call not in made]
    return [
        ToolCall(name=name, args=args, id=f"call_{uuid4().hex}", type="tool_call")
        for name, args in wanted + [call for call in retried if made.count(call) < MAX_ATTEMPTS]
    ]


def wanted_in(text: str, tools: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the calls that the text requests, each once."""
    matches = ((tool, m) for tool, rule in RULES if tool in tools for m in re.finditer(rule, text, re.IGNORECASE))
    calls = [
        (tool, {name: value for name, value in match.groupdict().items() if value})
        for tool, match in islice(matches, MAX_CALLS)
    ]
    return [call for number, call in enumerate(calls) if call not in calls[:number]]


def trailing_results(turn: list[BaseMessage]) -> list[ToolMessage]:
    """Return the tool results after the model's last message."""
    last = max((i for i, message in enumerate(turn) if isinstance(message, AIMessage)), default=-1)
    return [message for message in turn[last + 1 :] if isinstance(message, ToolMessage)]


def failed(message: ToolMessage) -> bool:
    """Return whether the tool failed; a message from the wire says so only in its text."""
    return message.status == "error" or message.text.startswith("Error: ")


def wants_another_try(message: ToolMessage) -> bool:
    """Return whether the tool failed and asks to be tried again."""
    return failed(message) and "try again" in message.text.lower()


def answer(messages: list[BaseMessage], turn: list[BaseMessage]) -> str:
    """Return the answer in words."""
    if tool_results := results(turn):
        return "\n".join(result_in_words(tool, result) for (tool, _), result in tool_results.items())
    return story(turn[0].text) or name_in_words(messages, turn[0].text) or small_talk(turn[0].text)


def results(turn: list[BaseMessage]) -> dict[tuple[str, str], ToolMessage]:
    """Return the last result of each tool and its arguments."""
    calls = {call["id"]: call for m in turn if isinstance(m, AIMessage) for call in m.tool_calls}
    answers = [(calls[m.tool_call_id], m) for m in turn if isinstance(m, ToolMessage)]
    return {(call["name"], json.dumps(call["args"])): message for call, message in answers}


def result_in_words(tool: str, message: ToolMessage) -> str:
    """Return what a tool answered, or that it failed."""
    verb = "failed" if failed(message) else "says"
    return f"The {tool} tool {verb}: {message.text.removeprefix('Error: ')}"


def story(text: str) -> str | None:
    """Return a story of the requested length; None if the text does not ask for one."""
    if not re.search(r"\bstory\b", text, re.IGNORECASE):
        return None
    length = re.search(r"(?<!\d)(\d{1,6}) words", text)
    words = int(length[1]) if length else 60 if "long" not in text.lower() else 240
    return " ".join(islice(cycle(TALE.split()), min(words, MAX_STORY)))


def name_in_words(messages: list[BaseMessage], text: str) -> str | None:
    """Return an answer about the person's name, if the text mentions or asks for it."""
    if mentioned := re.search(r"my name is (\w{1,50})", text, re.IGNORECASE):
        return f"Nice to meet you, {mentioned[1]}. I will remember your name in this conversation."
    if not re.search(r"what(?:'s| is) my name", text, re.IGNORECASE):
        return None
    human_text = " ".join(message.text for message in messages if isinstance(message, HumanMessage))
    names = re.findall(r"my name is (\w{1,50})", human_text, re.IGNORECASE)
    return f"Your name is {names[-1]}." if names else "You have not told me your name yet."


def small_talk(text: str) -> str:
    """Return the answer to everything else."""
    if re.match(r"\s*(?:hi|hello|hey|good (?:morning|evening)|who are you)\b", text, re.IGNORECASE):
        return f"Hello! {INTRODUCTION}"
    return f'You said: "{shorten(text, 200)}" I have no rule for that. {INTRODUCTION}'
