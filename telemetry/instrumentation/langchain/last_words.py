"""Find the text of a run that a person would read: the question in its input, the answer in its output."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_core.messages import BaseMessage

from telemetry.instrumentation.langchain.serialize import is_message
from telemetry.plain_data import fields_of, is_a, plain, safe_text

# Fields in which programs without messages store a question or an answer.
_QUESTIONS = ("input", "question", "query", "prompt", "message", "text")
_ANSWERS = ("output", "answer", "response", "result", "final_answer", "generation", "text")
_NAMES = {"image": "image", "image_url": "image", "input_image": "image", "audio": "audio", "input_audio": "audio"}
_NAMES |= {"video": "video", "file": "file", "document": "file", "media": "media"}


def question_in(inputs: Any) -> str:
    """Return the question from the last message or the field that contains it; an empty string if there is none."""
    inputs = _unwrapped(inputs, "input")
    held = fields_of(inputs)
    if held and held.get("resume") is not None:  # a command that answers the graph's question
        return safe_text(held["resume"])
    return _text_of(inputs, _QUESTIONS, {})


def answer_in(outputs: Any, given: Mapping[str, int]) -> str:
    """Return the answer; `given` has the identity of each input field, which is not an answer."""
    return _text_of(_unwrapped(outputs, "output"), _ANSWERS, given)


def identities(inputs: Any) -> dict[str, int]:
    """Return the identity of the object in each field of a state."""
    return {key: id(value) for key, value in inputs.items()} if type(inputs) is dict else {}


def text_of_message(message: BaseMessage) -> str:
    """Return the text of a message, with the names of its other parts and of the tools that it calls."""
    known = message.__dict__
    text = "".join(_text_of_parts(known.get("content")))
    return text or _beside_content(known.get("additional_kwargs")) or _calls(known.get("tool_calls"))


def _unwrapped(value: Any, name: str) -> Any:
    # LangChain passes a value that is not a dict to tracers under this name.
    return value[name] if type(value) is dict and value.keys() == {name} else value


def _text_of(value: Any, preferred: Iterable[str], given: Mapping[str, int]) -> str:
    if value is None or is_a(value, str):
        return safe_text(value or "")
    if is_message(value):
        return text_of_message(value)
    if type(value) in (list, tuple):
        return _last(value)
    state = value if type(value) is dict else fields_of(value)
    if state is None:
        return safe_text(value)
    if text := _last(state.get("messages")):
        return text
    new = {key: part for key, part in state.items() if given.get(key) != id(part) and key != "messages"}
    for key in preferred:
        if key in new and (text := _text_of(new[key], preferred, {})):
            return text
    texts = [part for part in new.values() if is_a(part, str) and part]
    if len(new) == 1 and texts:
        return safe_text(texts[0])
    return safe_text(new) if new else ""


def _last(messages: Any) -> str:
    """Return the text of the last message of a list, in any format that LangChain accepts."""
    if is_message(messages):
        return text_of_message(messages)
    if type(messages) not in (list, tuple) or not messages:
        return safe_text(messages) if is_a(messages, str) else ""
    last = messages[-1]
    if is_message(last):
        return text_of_message(last)
    if type(last) is tuple and len(last) == 2 and is_a(last[1], str):
        return safe_text(last[1])
    if type(last) is dict and "content" in last:
        return "".join(_text_of_parts(last["content"]))
    if type(last) in (list, tuple):
        return _last(last)
    return safe_text(last) if is_a(last, str) else safe_text(messages)


def _text_of_parts(content: Any) -> Iterator[str]:
    if is_a(content, str):
        yield safe_text(content)
        return
    for part in content if type(content) in (list, tuple) else ():
        if is_a(part, str):
            yield safe_text(part)
        elif type(part) is dict:
            kind = part.get("type")
            text = part.get("text") or part.get("refusal")
            if is_a(text, str):
                yield safe_text(text)
            elif is_a(kind, str) and kind in _NAMES:
                yield f"[{_NAMES[kind]}]"


def _beside_content(kwargs: Any) -> str:
    """Return the text that some providers put next to a message's content."""
    if type(kwargs) is not dict:
        return ""
    audio = kwargs.get("audio")
    words = kwargs.get("refusal") or (audio.get("transcript") if type(audio) is dict else None)
    return safe_text(words) if is_a(words, str) else ""


def _calls(calls: Any) -> str:
    names = [str(plain(call.get("name"))) for call in calls if type(call) is dict] if type(calls) is list else []
    return f"[calls {', '.join(names)}]" if names else ""
