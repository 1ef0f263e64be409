"""Write inputs and outputs as JSON: each message is serialised once, and only new messages of a history are written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from sys import getsizeof
from typing import Any, NamedTuple
from weakref import ref

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, ToolMessage
from pydantic import BaseModel

from telemetry.export.formats.messages import message as openai_message
from telemetry.export.formats.messages import role_of, said_beside
from telemetry.large_files import SHORTEST
from telemetry.lru_cache import ENTRY_BYTES, LruCache, size_of
from telemetry.messages_json import MessagesJson, under_messages
from telemetry.plain_data import (
    LONGEST,
    Budget,
    fields_of,
    is_a,
    json_of_builtins,
    plain,
    safe_json,
    to_bytes,
    truncate_long,
)

# The most bytes of cached messages, because each full garbage collection visits every live object.
_MAX_BYTES = 8 * 1024 * 1024
_MAX_BYTES_BY_OBJECT = 2 * 1024 * 1024
_FIELDS = ("content", "tool_calls", "invalid_tool_calls", "name", "tool_call_id")
# Where the tool calls stand in `SerializedMessage.fields`.
_TOOL_CALLS = 3
# A field of so many bytes is copied as JSON, to be compared later.
_SHORT = 8_192
# So many of the messages that a run began with are known again: what came out of it is compared from its end.
_LATEST = 64
# The types of messages that a node may write itself, and how the ids of a model's messages begin.
_OWN, _OF_MODEL = ("ai", "system", "human", "chat"), ("run-", "lc_run-")
_ANSWER = ("content", "name", "tool_call_id", "status")
_COMMAND = ("graph", "update", "resume", "goto")


class SerializedMessage(NamedTuple):
    """A message, its fields as they were when it was serialised, its JSON, and what all of it weighs in a cache."""

    # A cache keeps no message alive, with all that its provider has said of it.
    message: "ref[BaseMessage]"
    content: Any
    tool_calls: Any
    name: Any
    fields: tuple[Any, ...]
    text: str
    size: int
    weight: int


def _weigh(_: Any, shown: SerializedMessage) -> int:
    return shown.weight


class KnownMessages(NamedTuple):
    """The input messages of a run: the ids of the last ones, and their number."""

    ids: frozenset[str | None] = frozenset()
    number: int = 0

    def new_in(self, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """Return the messages after the last one that is known or from a person, or else the last message."""
        # Messages without an id get one later, in place; they come first in a state.
        first = self.number if None in self.ids and len(messages) > self.number else 0
        for at in range(len(messages) - 1, first - 1, -1):
            if messages[at].type == "human" or messages[at].id in self.ids:
                return messages[at + 1 :] or messages[-1:]
        return messages[first:]


class Serializer:
    """Writes the values of LangChain's callbacks as text at once, because they may be edited in place afterwards."""

    def __init__(self, budget: int = 0) -> None:
        self._budget = budget
        # By their ids, or what they say; and by the objects themselves, which is faster asked.
        self._by_key: LruCache[Any, SerializedMessage] = LruCache(_MAX_BYTES, _weigh)
        self._by_object: LruCache[int, SerializedMessage] = LruCache(_MAX_BYTES_BY_OBJECT, _weigh)

    def message(self, message: BaseMessage) -> SerializedMessage:
        """Return a message in OpenAI's format; it is serialised again only if one of its fields was assigned again."""
        known = message.__dict__
        shown = self._by_object.get(id(message))
        if (
            shown is not None
            and shown.message() is message
            and shown.content is known["content"]
            and shown.tool_calls is known.get("tool_calls")
            and shown.name is known.get("name")
            and shown.content.__class__ is str
            and (not shown.tool_calls or shown.fields[_TOOL_CALLS] == _copied(shown.tool_calls))
        ):
            return shown
        return self._by_fields(message, known)

    def _by_fields(self, message: BaseMessage, known: Mapping[str, Any]) -> SerializedMessage:
        # A checkpoint creates new objects for the same messages.
        content = known.get("content")
        extra = known.get("additional_kwargs")
        beside = _copied(said_beside(extra) or None) if extra else None
        copied = (message.__class__, beside, *[_copied(known.get(name)) for name in _FIELDS])
        key = known.get("id") or (content if type(content) is str else id(message))
        shown = self._by_key.get(key)
        if shown is None or shown.fields != copied:
            text, size = _serialize(message)
            weight = 3 * ENTRY_BYTES + getsizeof(text) + sum(map(_weight_of, copied[1:]))
            shown = self._shown(message, copied, text, size, weight)
            self._by_key.put(key, shown)
        elif shown.message() is not message:
            shown = self._shown(message, copied, shown.text, shown.size, shown.weight)
        self._by_object.put(id(message), shown)
        return shown

    @staticmethod
    def _shown(message: BaseMessage, copied: tuple[Any, ...], text: str, size: int, weight: int) -> SerializedMessage:
        known = message.__dict__
        bound = known.get("content"), known.get("tool_calls"), known.get("name")
        return SerializedMessage(ref(message), *bound, copied, text, size, weight)

    def conversation(self, messages: Sequence[BaseMessage], beside: int = 0) -> tuple[MessagesJson, int]:
        """Return a conversation within the budget, and how many bytes were left out of it.

        Above the budget: the first message, the last ones, and how many were between them.
        """
        shown = [self.message(each) for each in messages]
        sizes = [each.size + 1 for each in shown]
        budget = self._budget - beside
        if not self._budget or sum(sizes) <= budget or len(shown) < 3:
            return MessagesJson(json_list(shown)), 0
        kept = 1 + _fitting(sizes[-2:0:-1], budget - shown[0].size - shown[-1].size - 100)
        left_out = len(shown) - 1 - kept
        if not left_out:
            return MessagesJson(json_list(shown)), 0
        # In ASCII, so that a long conversation in ASCII takes one byte per character.
        gap = json.dumps({"role": "system", "content": f"[… {left_out} messages left out …]"}, separators=(",", ":"))
        between = shown[0]._replace(text=gap, size=len(gap))
        return MessagesJson(json_list([shown[0], between, *shown[-kept:]])), sum(sizes[1:-kept])

    def input_text(self, value: Any) -> str | None:
        """Return the input of a run, with only the last message of each conversation."""
        return self._text(value, new=None)

    def output_text(self, value: Any, known: KnownMessages) -> str | None:
        """Return the output of a run, with only its new messages."""
        return self._text(value, new=known)

    def arguments_text(self, arguments: Any) -> str:
        """Return what a tool was called with, each argument by its name."""
        return safe_json(arguments, Budget(shape=_shaped))

    def own_messages(self, value: Any, known: KnownMessages) -> MessagesJson | None:
        """Return those new messages of a node that neither a model nor a tool wrote; None where there are none."""
        new = known.new_in(messages_of(_update_of(value)))
        own = [each for each in new if _is_own(each) and not (each.id and each.id in known.ids)]
        return MessagesJson(json_list([self.message(each) for each in own])) if own else None

    def _text(self, value: Any, new: KnownMessages | None) -> str | None:
        value = _unwrapped(value)
        if is_a(value, str):
            return truncate_long(str.__str__(value))
        if is_a(value, ToolMessage):
            return safe_json({"type": "tool", **{key: value.__dict__.get(key) for key in _ANSWER}})
        if value.__class__ is dict and not value:
            return None
        messages = messages_of(value)
        if not messages:
            return safe_json(value, Budget(shape=_shaped))
        if len(value) == 1:
            return MessagesJson(under_messages(self._new(messages, new)))
        return "".join(self._fields(value, self._new(messages, new)))

    def _new(self, messages: Sequence[BaseMessage], known: KnownMessages | None) -> list[str]:
        chosen = messages[-1:] if known is None else known.new_in(messages)
        return json_list([self.message(each) for each in chosen])

    def _fields(self, state: dict[Any, Any], messages: list[str]) -> Iterator[str]:
        budget, between = Budget(shape=_shaped), "{"
        for key, part in list(state.items()):
            yield f"{between}{safe_json(str(key))}:"
            yield from messages if key == "messages" else (safe_json(part, budget),)
            between = ","
        yield "}"


def _shaped(value: Any) -> Any:
    """Return the part of a state to show: the last one of messages, the content of commands."""
    kind = type(value)
    if kind in (list, tuple) and value and is_message(value[0]) and is_message(value[-1]):
        return [openai_message_of(value[-1])]
    if is_message(value):
        return openai_message_of(value)
    if kind.__name__ == "Send" and kind.__module__.startswith("langgraph"):
        return {"node": value.node, "arg": value.arg}
    if kind is not dict and not is_a(value, BaseModel) and (held := fields_of(value)) is not None:
        return {key: part for key, part in held.items() if part is not None and not _is_unused(key, part)}
    return value


def _is_unused(key: str, part: Any) -> bool:
    return key in _COMMAND and type(part) in (list, tuple) and not part


def messages_of(value: Any) -> Sequence[BaseMessage]:
    """Return the messages of a state, if it has any."""
    found = dict.get(value, "messages") if is_a(value, dict) else None
    return found if type(found) is list and found and is_message(found[0]) and is_message(found[-1]) else ()


def _update_of(value: Any) -> Any:
    """Return what a node writes to the state, also where a command holds it."""
    returned = dict.get(value, "output") if is_a(value, dict) and len(value) == 1 else None
    is_command = type(returned).__name__ == "Command" and type(returned).__module__.startswith("langgraph")
    return returned.update if is_command else value  # pyright: ignore[reportOptionalMemberAccess] - it is one


def _is_own(message: BaseMessage) -> bool:
    known = message.__dict__
    of_model = known.get("response_metadata") or known.get("usage_metadata")
    # LangChain gives what a model answers the id of the model's run, unless the provider has given it one.
    return not of_model and message.type in _OWN and not str(known.get("id") or "").startswith(_OF_MODEL)


def is_message(value: Any) -> bool:
    """Return whether a value is one of LangChain's messages."""
    return is_a(value, BaseMessage)


def plain_documents(documents: Sequence[Document]) -> list[Document]:
    """Return these documents with their metadata as plain data."""
    return [each.model_copy(update={"metadata": plain(each.metadata)}) for each in documents]


def plain_prompt_inputs(inputs: Any) -> Any:
    """Return the input of a prompt as plain data, except its messages."""
    if not is_a(inputs, dict):
        return plain(inputs)
    return {key: value if _holds_messages(value) else plain(value) for key, value in dict.items(inputs)}


def _holds_messages(value: Any) -> bool:
    return is_message(value[0] if type(value) in (list, tuple) and value else value)


def known_messages(value: Any) -> KnownMessages:
    """Return the known messages of a state."""
    messages = messages_of(value)
    return KnownMessages(frozenset([message.id for message in messages[-_LATEST:]]), len(messages))


def _unwrapped(value: Any) -> Any:
    """Return the value of a single field without its name, if it is text or the name is `input` or `output`."""
    if type(value) is dict and len(value) == 1:
        ((name, only),) = value.items()
        value = only if is_a(only, str) or name in ("input", "output") else value
    held = fields_of(value) if is_a(value, BaseModel) and not is_message(value) else None
    return held if held and "messages" in held else value


def json_list(shown: Sequence[SerializedMessage]) -> list[str]:
    """Return the parts of a JSON list of these messages."""
    if not shown:
        return ["[]"]
    parts = [","] * (2 * len(shown) + 1)
    parts[1::2] = [each.text for each in shown]
    parts[0], parts[-1] = "[", "]"
    return parts


def _fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of these sizes fit, in their order."""
    for fit, size in enumerate(sizes):
        room -= size
        if room < 0:
            return fit
    return len(sizes)


def openai_message_of(message: BaseMessage) -> dict[str, Any]:
    """Return a message in OpenAI's format; for unknown kinds, its type and its content."""
    known = message.__dict__
    role = _role_of_type(message.type)
    content = known.get("content")
    extra = known.get("additional_kwargs")
    beside = said_beside(extra) if extra else {}
    if role and type(content) is str and not beside and not any(map(known.get, _FIELDS[1:])):
        return {"role": role, "content": truncate_long(content)}
    raw = {"type": message.type, **{key: _plain(known.get(key)) for key in _FIELDS}, **_plain(beside)}
    return openai_message(raw) or {"type": message.type, "id": message.id, "content": raw["content"]}


@lru_cache(maxsize=64)
def _role_of_type(kind: str) -> str | None:
    return role_of({"type": kind})


def _plain(value: Any) -> Any:
    # What most messages have in most of their fields.
    is_short = value is None or (type(value) is str and len(value) < SHORTEST)
    return value if is_short or (type(value) in (list, dict) and not value) else plain(value)


def _serialize(message: BaseMessage) -> tuple[str, int]:
    body = to_bytes(openai_message_of(message))
    return body.decode(), len(body)


def _copied(value: Any) -> Any:
    """Return a copy of a field that can be compared later: its plain data as it is now."""
    if value is None or type(value) is str:
        return value
    if type(value) is list and not value:
        return []  # most messages call nothing
    # As JSON where it is short, such as the calls of a model: that is made in C. Its buffer is larger than the text.
    found = json_of_builtins(value, Budget(_SHORT))
    return (found.decode(),) if found else plain(value, Budget(LONGEST))


def _weight_of(copied: Any) -> int:
    if copied is None:
        return 0
    if type(copied) is str:
        return getsizeof(copied)
    # What is no text is alive beside its copy; it is weighed by the copy, since to read it may have an effect.
    own = json.loads(copied[0]) if type(copied) is tuple else copied
    return size_of(copied) + size_of(own)
