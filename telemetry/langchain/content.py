"""What went in and what came out as JSON: each message serialised once, and of a history what is new."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage, ToolMessage
from pydantic import BaseModel

from telemetry.json_text import written
from telemetry.remembered import Remembered
from telemetry.said import Said, under_messages
from telemetry.shape.messages import message as in_openai_shape
from telemetry.shape.messages import role_of

# Longer text than this is cut; what is shorter is cut behind the fence, where no secret can be cut in two.
LONGEST = 1_000_000
# Deeper than this nobody looks for conversations.
_DEEPEST = 6
# Messages of threads that are active, in bytes: what is kept alive is looked at by each full garbage collection.
_REMEMBERED = 8 * 1024 * 1024
_OBJECTS = 2 * 1024 * 1024
_FIELDS = ("content", "tool_calls", "invalid_tool_calls", "name", "tool_call_id")
# So many of the messages that a run began with are known again: what came out of it is compared from its end.
_LATEST = 64
_ANSWER = ("content", "name", "tool_call_id", "status")
_COMMAND = ("graph", "update", "resume", "goto")


class Shown(NamedTuple):
    """A message, its fields as they were when it was serialised, and its JSON."""

    message: BaseMessage
    content: Any
    tool_calls: Any
    name: Any
    of: tuple[Any, ...]
    text: str
    size: int


class Known(NamedTuple):
    """The messages that a run began with: the ids of the last ones, and how many there were."""

    ids: frozenset[str | None] = frozenset()
    number: int = 0

    def new_in(self, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """Return what follows the last one that was there before or that a person said; the last where that is all."""
        # Those without an id get theirs in place, later; a state holds them first.
        first = self.number if None in self.ids and len(messages) > self.number else 0
        for at in range(len(messages) - 1, first - 1, -1):
            if messages[at].type == "human" or messages[at].id in self.ids:
                return messages[at + 1 :] or messages[-1:]
        return messages[first:]


class Content:
    """Turns what LangChain's callbacks hand over into text, at once: it may be edited in place right after."""

    def __init__(self, budget: int = 0) -> None:
        self._budget = budget
        # By their ids, or what they say; and by the objects themselves, which is faster asked.
        self._shown: Remembered[Any, Shown] = Remembered(_REMEMBERED)
        self._seen: Remembered[int, Shown] = Remembered(_OBJECTS)

    def message(self, message: BaseMessage) -> Shown:
        """Return a message in OpenAI's shape; it is serialised anew only if something in it was bound anew."""
        known = message.__dict__
        shown = self._seen.get(id(message))
        if (
            shown is not None
            and shown.message is message
            and shown.content is known["content"]
            and shown.tool_calls is known.get("tool_calls")
            and shown.name is known.get("name")
            and shown.content.__class__ is str
            and shown.of[2] == shown.tool_calls
        ):
            return shown
        return self._found(message, known)

    def _found(self, message: BaseMessage, known: Mapping[str, Any]) -> Shown:
        """A checkpoint makes new objects of the same messages."""
        content = known.get("content")
        of = (message.__class__, *map(known.get, _FIELDS))
        key = known.get("id") or (content if isinstance(content, str) else id(message))
        shown = self._shown.get(key)
        if shown is None or shown.of != of:
            text, size = _serialised(message)
            of = tuple(map(_as_it_is, of))
            shown = Shown(message, content, known.get("tool_calls"), known.get("name"), of, text, size)
            self._shown.put(key, shown, size)
        elif shown.message is not message:
            shown = Shown(message, content, known.get("tool_calls"), known.get("name"), of, shown.text, shown.size)
        self._seen.put(id(message), shown, shown.size)
        return shown

    def conversation(self, messages: Sequence[BaseMessage], beside: int = 0) -> tuple[Said, int]:
        """Return a conversation within the budget, and how many bytes were left out of it.

        Above the budget: the first message, the last ones, and how many were between them.
        """
        shown = [self.message(each) for each in messages]
        sizes = [each.size + 1 for each in shown]
        budget = self._budget - beside
        if not self._budget or sum(sizes) <= budget or len(shown) < 3:
            return Said(listed(shown)), 0
        kept = 1 + _fitting(sizes[-2:0:-1], budget - shown[0].size - shown[-1].size - 100)
        left_out = len(shown) - 1 - kept
        if not left_out:
            return Said(listed(shown)), 0
        # In ASCII, so that a long conversation which is no more than that takes one byte a sign.
        gap = json.dumps({"role": "system", "content": f"[… {left_out} messages left out …]"}, separators=(",", ":"))
        between = shown[0]._replace(text=gap, size=len(gap))
        return Said(listed([shown[0], between, *shown[-kept:]])), sum(sizes[1:-kept])

    def given(self, value: Any) -> str | None:
        """Return what went into a run: of each conversation in it the last message."""
        return self._text(value, new=None)

    def came(self, value: Any, known: Known) -> str | None:
        """Return what came out of a run: of its messages those that are new."""
        return self._text(value, new=known)

    def _text(self, value: Any, new: Known | None) -> str | None:
        value = _unwrapped(value)
        if isinstance(value, str):
            return bounded(value)
        if isinstance(value, ToolMessage):
            return in_json({"type": "tool", **{key: getattr(value, key) for key in _ANSWER}})
        if value.__class__ is dict and not value:
            return None
        messages = messages_of(value)
        if messages and len(value) == 1:
            return Said(under_messages(self._new(messages, new)))
        told = {"messages": self._new(messages, new)} if messages else {}
        return "".join(self._fields(value, 0, told) if messages else self._parts(value, 0))

    def _new(self, messages: Sequence[BaseMessage], known: Known | None) -> list[str]:
        chosen = messages[-1:] if known is None else known.new_in(messages)
        return listed([self.message(each) for each in chosen])

    def _parts(self, value: Any, depth: int) -> Iterator[str]:
        if isinstance(value, BaseMessage):
            yield self.message(value).text
        elif depth > _DEEPEST:
            yield in_json(value)
        elif isinstance(value, dict):
            yield from self._fields(value, depth, {})
        elif isinstance(value, (list, tuple)) and value:
            yield from self._items(value, depth)
        elif is_dataclass(value) and not isinstance(value, type):
            held = {each.name: getattr(value, each.name) for each in fields(value)}
            yield from self._fields({key: part for key, part in held.items() if part is not None}, depth, {})
        elif type(value).__name__ == "Send":
            yield from self._fields({"node": value.node, "arg": value.arg}, depth, {})  # pyright: ignore[reportAttributeAccessIssue] - LangGraph's, which is not always there
        else:
            yield in_json(value)

    def _fields(self, value: dict[Any, Any], depth: int, written_already: dict[str, list[str]]) -> Iterator[str]:
        between, room = "{", LONGEST
        for key, part in value.items():
            if key in _COMMAND and (part is None or part in ([], ())):
                continue
            yield f"{between}{in_json(str(key))}:"
            for text in written_already.get(key) or self._parts(part, depth + 1):
                room -= len(text)
                yield text
            between = ","
            if room < 0:
                yield ',"…":"[… further fields left out …]"'
                break
        yield "}" if between == "," else "{}"

    def _items(self, value: Sequence[Any], depth: int) -> Iterator[str]:
        if isinstance(value[0], BaseMessage) and isinstance(value[-1], BaseMessage):
            yield from listed([self.message(value[-1])])
            return
        between, room = "[", LONGEST
        for item in value:
            yield between
            for text in self._parts(item, depth + 1):
                room -= len(text)
                yield text
            between = ","
            if room < 0:
                yield f',"[… of {len(value)} items the others left out …]"'
                break
        yield "]"


def messages_of(value: Any) -> Sequence[BaseMessage]:
    """Return the messages of a state, none where it has none."""
    found = value.get("messages") if isinstance(value, dict) else None
    is_list = isinstance(found, list) and found and isinstance(found[0], BaseMessage)
    return found if is_list and isinstance(found[-1], BaseMessage) else ()  # pyright: ignore[reportOptionalSubscript, reportReturnType] - it is a list of them


def known_in(value: Any) -> Known:
    """Return what is known of the messages of a state."""
    messages = messages_of(value)
    return Known(frozenset([message.id for message in messages[-_LATEST:]]), len(messages))


def bounded(text: str) -> str:
    """Return text, or the first lines of a very long one; a cut at the end of a line cuts no secret in two."""
    if len(text) <= LONGEST:
        return text
    head = text[: LONGEST // 8]
    head = head[: head.rfind("\n") + 1]
    return f"{head}[… {len(text) - len(head)} characters left out …]"


def _unwrapped(value: Any) -> Any:
    """A run's single field that says no more than its place goes without its name."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, only),) = value.items()
        value = only if isinstance(only, str) or name in ("input", "output") else value
    return dict(value) if isinstance(value, BaseModel) and hasattr(value, "messages") else value


def listed(shown: Sequence[Shown]) -> list[str]:
    """Return the parts of a JSON list of these messages, each by itself."""
    if not shown:
        return ["[]"]
    parts = [","] * (2 * len(shown) + 1)
    parts[1::2] = [each.text for each in shown]
    parts[0], parts[-1] = "[", "]"
    return parts


def _fitting(sizes: Sequence[int], room: int) -> int:
    """Return how many of these fit, in their order."""
    for fit, size in enumerate(sizes):
        room -= size
        if room < 0:
            return fit
    return len(sizes)


def _as_it_is(value: Any) -> Any:
    # A list, and what is in it, may be edited in place.
    if value.__class__ is list:
        return [_as_it_is(each) for each in value]
    return {key: _as_it_is(each) for key, each in value.items()} if value.__class__ is dict else value


def _serialised(message: BaseMessage) -> tuple[str, int]:
    known = message.__dict__
    role = role_of({"type": message.type})
    if role and isinstance(message.content, str) and not any(map(known.get, _FIELDS[1:])):
        shaped: Any = {"role": role, "content": message.content}
    else:
        raw = {"type": message.type, **{key: known.get(key) for key in _FIELDS}}
        shaped = in_openai_shape(raw) or {"type": message.type, "id": message.id, "content": message.content}
    if isinstance(shaped["content"], str):
        shaped["content"] = bounded(shaped["content"])
    body = _bytes(shaped)
    return body.decode(), len(body)


def in_json(value: Any) -> str:
    """Return the JSON of any value; what cannot be written is named."""
    value = bounded(value) if isinstance(value, str) else value
    return _bytes(value).decode()


def _bytes(value: Any) -> bytes:
    try:
        return written(value)
    except Exception:  # noqa: BLE001 - half of a surrogate pair, a circle, or what a value's own serialiser raises
        return _odd(value)


def _odd(value: Any) -> bytes:
    try:
        return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")
    except Exception:  # noqa: BLE001 - see above
        return written(f"[a {type(value).__name__} that is no JSON]")
