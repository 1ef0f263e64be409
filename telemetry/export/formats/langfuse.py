"""The shape that Langfuse shows well; other backends read it too.

Langfuse sums up what its observations say: each text is in one of them. The root has the question and the answer of its
trace, a model call its messages in OpenAI's shape and what it cost, a tool call its arguments and its result. Any other
run has what no model and no tool has said, and otherwise nothing.
"""

import re
from typing import Any

from telemetry.export.formats.flat_messages import INPUT_MESSAGES, OUTPUT_MESSAGES, read_messages
from telemetry.export.formats.genai import CONTENT
from telemetry.export.formats.marks import ANSWER, MARKS, OWN_MESSAGES, QUESTION, RECORDERS, SHOWN_ON_ROOT
from telemetry.export.formats.messages import Message, conversation, fields_of, listed, message, openai_call
from telemetry.export.formats.openinference import with_readable_names
from telemetry.export.formats.question import run_said
from telemetry.export.media import REFERENCE, REFERENCE_HEAD
from telemetry.export.otlp import Attributes, RedactedSpan, Span
from telemetry.json_text import dump, parse
from telemetry.messages_json import MessagesJson

KIND = "openinference.span.kind"
INPUT, OUTPUT = "langfuse.observation.input", "langfuse.observation.output"
METADATA = "langfuse.observation.metadata."
# Set by whoever records a run and knows how many messages it began with, of which the last one is shown.
COUNT = METADATA + "messages"
LEVEL, STATUS_MESSAGE = "langfuse.observation.level", "langfuse.observation.status_message"
MAX_PREVIEW = 200

# What is filterable of an observation, beside what somebody sets under these prefixes by hand.
FILTERABLE = ("langgraph_node", "langgraph_step", "messages", "finish_reason", "tool_call_id", "bytes", "success")
_RENAMED = {"input": INPUT, "output": OUTPUT, **{key: METADATA + key for key in FILTERABLE}}

# Langfuse takes these plain names for its own fields: `model` alone makes any span a generation.
_MISREAD = ("model", "input", "output", "prompt", "events")
# What the shape shows under other names.
_SHOWN = ("input.value", "output.value", "input.mime_type", "output.mime_type", "metadata", "tool.description")
_SHOWN_PARTS = ("llm.input_messages.", "llm.output_messages.", "llm.tools.", "llm.prompts.", "retrieval.documents.")

_TOOLS = "llm.tools."
_TOOL = re.compile(r"llm\.tools\.\d+\.tool\.json_schema")
# The definitions stand beside the messages; the rest is shown elsewhere or tells nothing.
_NO_PARAMETERS = {"tools", "functions", "model", "model_name", "_type", "messages"}
# Fields of a command and of a task that hold nothing new: no value, or the whole state once more.
_EMPTY_OF_COMMAND = {"graph", "update", "resume", "goto"}
# What LangGraph passes to the node of a tool: the call, and the whole state once more.
_TOOL_NODE_INPUT = "tool_call_with_context"
# Langfuse heads a trace with the name of its root. It takes this, which is nobody else's, before the span's name: a
# request that is a turn is called by its agent there, and by its route elsewhere.
_TITLE = "logfire.msg"
_TOKENS = "llm.token_count."
# The kinds of tokens that are part of what went in and of what came out, by Langfuse's names.
_DETAILS = {
    "input": {
        "input_cached_tokens": "prompt_details.cache_read",
        "input_cache_creation": "prompt_details.cache_write",
        "input_audio_tokens": "prompt_details.audio",
    },
    "output": {
        "output_reasoning_tokens": "completion_details.reasoning",
        "output_audio_tokens": "completion_details.audio",
    },
}
_MAX_DEPTH = 3
# The parts of messages that Langfuse draws as they are.
_DRAWN = ("text", "image_url", "input_audio")
_TRACE_NAME = "langfuse.trace.name"
_FRAMEWORKS = ("openinference.instrumentation.",)
# Langfuse adds up the tokens of all observations: an agent's are those of its models once more.
_COUNTS = (_TOKENS, "llm.cost.", "gen_ai.usage.", "gen_ai.aggregated_usage.")


def langfuse(span: Span) -> Span:
    """Return the span as Langfuse shows it well: chat messages, what is new, what can be filtered."""
    span = with_question(with_readable_names(span))
    attributes = _shaped(span) if KIND in span.attributes else span.attributes
    if span.status == "ERROR":
        level = {LEVEL: "ERROR", STATUS_MESSAGE: span.message}
        attributes = {**level, **attributes}
    elif "interrupted" in attributes:
        attributes = {STATUS_MESSAGE: "waits for an answer", **attributes}
    if span.kind == "SERVER" and "input.value" in attributes and (name := attributes.get(_TRACE_NAME)):
        attributes = {_TITLE: name, **attributes}
    if not attributes.keys().isdisjoint(MARKS):
        attributes = {key: value for key, value in attributes.items() if key not in MARKS}
    if not attributes.keys().isdisjoint(_MISREAD):
        attributes = {f"span.{key}" if key in _MISREAD else key: value for key, value in attributes.items()}
    return span.but(attributes=attributes)


def draw_files(span: Span) -> Span:
    """Return a span with the files in its messages as parts that Langfuse draws in their place.

    It knows OpenAI's parts for pictures and sound, and a reference alone; one other part has it show the whole message
    as JSON.
    """
    if not (isinstance(span, RedactedSpan) and span.attachments):
        return span
    drawn = {key: _with_drawn_files(span.attributes[key]) for key in (INPUT, OUTPUT) if key in span.attributes}
    return span.but(attributes={**span.attributes, **drawn})


def _with_drawn_files(text: Any) -> Any:
    value = parse(text) if REFERENCE_HEAD in str(text) else None
    messages = value.get("messages") if isinstance(value, dict) else value
    changed = False
    for each in messages if isinstance(messages, list) else [messages]:
        if not isinstance(each, dict) or "role" not in each or not isinstance(content := each.get("content"), list):
            continue
        each["content"] = [drawn for part in content for drawn in _drawn(part)]
        changed = changed or each["content"] != content
    return dump(value) if changed else text


def _drawn(part: Any) -> list[Any]:
    if not isinstance(part, dict) or part.get("type") in _DRAWN:
        return [part]
    references = list(REFERENCE.finditer(dump(part)))
    if len(references) != 1:
        return [part]
    (reference,) = references
    file = part.get("file")
    name = file.get("filename") if isinstance(file, dict) else part.get("filename")
    named = [{"type": "text", "text": name}] if isinstance(name, str) else []
    match reference["type"].partition("/")[0]:
        case "image":
            return [*named, {"type": "image_url", "image_url": {"url": reference.group()}}]
        case "audio":
            return [*named, {"type": "input_audio", "input_audio": {"data": reference.group()}}]
    return [*named, reference.group()]


def _shaped(span: Span) -> Attributes:
    """Return the attributes of a run, a call or a turn."""
    attributes = span.attributes
    shape = {"LLM": _model_call, "TOOL": _tool_call}.get(str(attributes[KIND]), _run)
    left_out = (*_SHOWN_PARTS, *(_COUNTS if attributes[KIND] == "AGENT" else ()))
    kept = {
        key: value
        for key, value in attributes.items()
        if key not in _SHOWN and key not in CONTENT and not key.startswith(left_out)
    }
    metadata = parse(attributes.get("metadata"))
    if isinstance(metadata, dict):
        for key in ("langgraph_node", "langgraph_step"):
            if key in metadata:
                kept[METADATA + key] = metadata[key]
    return {**kept, **{_RENAMED.get(key, key): value for key, value in shape(span).items() if value is not None}}


def with_question(span: Span) -> Span:
    """Return the root of another framework's trace with a question and an answer that people can read."""
    attributes = span.attributes
    if span.parent_id is not None or span.scope in RECORDERS or attributes.get(KIND) not in ("AGENT", "CHAIN"):
        return span
    if attributes[KIND] == "AGENT" and (agent := attributes.get("agent.name")):
        attributes = {_TRACE_NAME: agent, **attributes}
    noted = attributes.get(QUESTION), attributes.get(ANSWER)
    if not any(noted) and not span.scope.startswith(_FRAMEWORKS):
        return span.but(attributes=attributes)
    found = [own or other for own, other in zip(run_said(attributes), noted, strict=True)]
    said = {key: text for key, text in zip(("input.value", "output.value"), found, strict=True) if text}
    return span.but(attributes={**attributes, **said})


def add_preview(span: Span) -> Span:
    """Return a tool call with the beginning of its input in one line.

    It runs after redaction, because half a secret is not recognised.
    """
    if span.attributes.get(KIND) != "TOOL":
        return span
    given = span.attributes.get(INPUT, span.attributes.get("input.value"))
    if given is None:
        return span
    line = " ".join(dump(given)[: 4 * MAX_PREVIEW].split())
    preview = line if len(line) <= MAX_PREVIEW else line[: MAX_PREVIEW - 1] + "…"
    return span.but(attributes={**span.attributes, "input.preview": preview})


def _model_call(span: Span) -> Attributes:
    attributes = span.attributes
    answer = parse(attributes.get("output.value"))
    generations = _generations(answer)
    return {
        "input": model_input(attributes),
        "output": _answer_text(attributes, answer, generations),
        "llm.invocation_parameters": _parameters(attributes.get("llm.invocation_parameters")),
        "langfuse.observation.usage_details": _usage(attributes),
        "langfuse.observation.cost_details": _cost(attributes, generations),
        "finish_reason": attributes.get("llm.finish_reason"),
    }


def model_input(attributes: Attributes, *, with_tools: bool = True) -> str | None:
    """Return what a model was asked, in OpenAI's format, with or without the definitions of its tools."""
    given = attributes.get("input.value")
    tools = tool_definitions(attributes) if with_tools else []
    if isinstance(given, MessagesJson):
        return given.with_tools(tools) if tools else given.messages
    asked = parse(given)
    messages = _longest(_conversation_in(asked), read_messages(attributes, INPUT_MESSAGES)) or asked
    if isinstance(messages, dict):
        messages = messages.get("prompts") or messages
    if messages is None:
        return None if given is None else dump(given)
    parsed = [parse(tool) or tool for tool in tools]
    return dump({"messages": messages, "tools": parsed} if parsed else messages)


def tool_definitions(attributes: Attributes) -> list[Any]:
    """Return the definitions of the tools that a model may call, each in JSON."""
    return [value for key, value in attributes.items() if key.startswith(_TOOLS) and _TOOL.fullmatch(key)]


def _longest(found: list[Message] | None, flat: list[Message]) -> list[Message] | None:
    # A request may hold the system's message elsewhere, and what a program writes by hand may be no messages at all.
    return flat if len(flat) > len(found or ()) else found


def _conversation_in(given: Any) -> list[Message] | None:
    return conversation(given.get("messages")) if isinstance(given, dict) else None


def model_output(attributes: Attributes) -> str | None:
    """Return what a model answered, in OpenAI's format; None where it has not."""
    output = attributes.get("output.value")
    if isinstance(output, MessagesJson):
        return output
    answer = parse(output)
    return _answer_text(attributes, answer, _generations(answer))


def _answer_text(attributes: Attributes, answer: Any, generations: list[Any]) -> str | None:
    output = attributes.get("output.value")
    if isinstance(output, MessagesJson):
        return output
    if generations:
        messages = [_generated(each) for each in generations]
        return dump(messages[0] if len(messages) == 1 else messages)
    if flat := read_messages(attributes, OUTPUT_MESSAGES):
        return dump(flat[0] if len(flat) == 1 else flat)
    if isinstance(answer, list) and answer and all(isinstance(each, dict) and "function" in each for each in answer):
        return dump({"role": "assistant", "content": "", "tool_calls": [openai_call(call) for call in answer]})
    # A result without generations is that of a call that failed.
    is_empty_result = isinstance(answer, dict) and "generations" in answer
    return None if output is None or is_empty_result else dump(output)


def _generations(answer: Any) -> list[Any]:
    found = answer.get("generations") if isinstance(answer, dict) else None
    groups = found if isinstance(found, list) else []
    return [each for group in groups for each in (group if isinstance(group, list) else [group])]


def _generated(generation: Any) -> Message | Any:
    if not isinstance(generation, dict):
        return generation
    return message(generation.get("message")) or {"role": "assistant", "content": generation.get("text")}


def _parameters(given: Any) -> str | None:
    known = parse(given)
    if not isinstance(known, dict):
        return given
    return dump({key: value for key, value in known.items() if is_parameter(key, value)})


def is_parameter(name: str, value: Any) -> bool:
    """Return whether it is a parameter of a model call that is not shown elsewhere."""
    return name not in _NO_PARAMETERS and value is not None


def _usage(attributes: Attributes) -> str | None:
    """Return the tokens of a call by kind, each counted once; None where they are of two kinds, as Langfuse reads them.

    Those that were cached, that a model thought with, or that are sound have prices of their own.
    """
    counts = {key: attributes.get(_TOKENS + key) for key in ("prompt", "completion", "total")}
    details = {
        place: {name: count for name, key in names.items() if (count := attributes.get(_TOKENS + key))}
        for place, names in _DETAILS.items()
    }
    if not any(details.values()):
        return None
    sums = {
        name: max(count - sum(details[name].values()), 0)
        for name, count in (("input", counts["prompt"]), ("output", counts["completion"]))
        if count is not None
    }
    total = {} if counts["total"] is None else {"total": counts["total"]}
    return dump({**sums, **details["input"], **details["output"], **total})


def _cost(attributes: Attributes, generations: list[Any]) -> str | None:
    """Return what a call cost in dollars: by the prices that were set, or as the provider reports within its usage."""
    reported = attributes.get("llm.cost.total")
    for generation in generations if reported is None else ():
        fields = fields_of(generation.get("message") if isinstance(generation, dict) else None)
        metadata = fields.get("response_metadata")
        for usage in (metadata.get("token_usage"), metadata.get("usage")) if isinstance(metadata, dict) else ():
            reported = usage.get("cost", reported) if isinstance(usage, dict) else reported
    if not isinstance(reported, (int, float)) or isinstance(reported, bool):
        return None
    parts = {"input": attributes.get("llm.cost.prompt"), "output": attributes.get("llm.cost.completion")}
    priced = {name: cost for name, cost in parts.items() if isinstance(cost, (int, float))}
    return dump({**(priced if sum(priced.values()) == reported else {}), "total": reported})


def _tool_call(span: Span) -> Attributes:
    given, text, fields = tool_content(span)
    return {
        "input": given,
        "output": text,
        "bytes": None if text is None else len(text.encode()),
        "tool_call_id": fields.get("tool_call_id"),
        "success": span.status != "ERROR" and fields.get("status") != "error",
    }


def tool_content(span: Span) -> tuple[str | None, str | None, Message]:
    """Return a tool's arguments and its result, and the fields of the message that the result was in."""
    given, output = span.attributes.get("input.value"), span.attributes.get("output.value")
    answer = parse(output)
    fields = fields_of(answer)
    is_message = isinstance(answer, dict) and fields.get("type") == "tool" and "content" in fields
    if is_message:
        result = fields["content"]
    else:
        fields, result = {}, output if answer is None else _without_history(answer)
    return None if given is None else _arguments(given), None if result is None else dump(result), fields


def _arguments(given: Any) -> str:
    """Return what a tool was called with, without what an instrumentor has put around it."""
    parsed = parse(given)
    inner = parsed.get("kwargs") if isinstance(parsed, dict) and not parsed.get("args") else None
    return dump(inner if isinstance(inner, dict) else given)


def _run(span: Span) -> Attributes:
    given, output, messages = run_content(span)
    return {"input": given, "output": output, "messages": span.attributes.get(COUNT) or messages or None}


def run_content(span: Span) -> tuple[str | None, str | None, int]:
    """Return the input and the output of a run as far as no other span has them, and the messages it began with."""
    attributes = span.attributes
    given, output = attributes.get("input.value"), attributes.get("output.value")
    before, on_root = parse(given), attributes.get(SHOWN_ON_ROOT)
    messages = (listed(before.get("messages")) if isinstance(before, dict) else None) or []
    repeats = span.parent_id is not None and span.scope in RECORDERS and on_root is None
    # What a graph is resumed with is what a person has answered.
    is_answer = isinstance(before, dict) and "resume" in before and before.keys() <= _EMPTY_OF_COMMAND
    is_shown = "input" in (on_root or ()) or (repeats and is_answer)
    shown_output = None if "output" in (on_root or ()) else _shown(output, parse(output), repeats=repeats)
    shown_input = None if is_shown else _shown(given, before, repeats=repeats)
    return shown_input, attributes.get(OWN_MESSAGES) or shown_output, len(messages)


def _shown(text: Any, parsed: Any, *, repeats: bool) -> str | None:
    if text is None:
        return None
    if parsed is None:
        return dump(text)
    shown = _without_messages(parsed) if repeats else _without_history(parsed)
    if isinstance(shown, dict) and shown.keys() == {"messages"}:
        shown = shown["messages"]
    return None if shown is None else dump(shown)


def _without_messages(value: Any, depth: int = 0) -> Any:
    """Return a state, or what holds one, without the messages and the tool calls in it; None where that was all."""
    if depth > _MAX_DEPTH or not value or not isinstance(value, (dict, list)):
        return value
    if isinstance(value, list):
        parts = [] if listed(value) else [_without_messages(part, depth + 1) for part in value]
        return [part for part in parts if part is not None] or None
    if message(value) or value.get("type") == "tool_call" or value.get("__type") == _TOOL_NODE_INPUT:
        return None
    kept = {key: _without_messages(part, depth + 1) for key, part in value.items()}
    return {key: part for key, part in kept.items() if part is not None} or None


def _without_history(value: Any, depth: int = 0) -> Any:
    """Return a state, or what holds one, with only the last message of each conversation in it.

    What it calls is left out: Langfuse counts the calls of every observation.
    """
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {
            key: _without_history(part, depth + 1)
            for key, part in value.items()
            if not (key in _EMPTY_OF_COMMAND and (part is None or part == []))
        }
    if isinstance(value, list):
        if not (messages := listed(value)):
            return [_without_history(part, depth + 1) for part in value]
        last = message(messages[-1]) or {}
        is_only_calls = "tool_calls" in last and not last.get("content")
        return None if is_only_calls else [{key: part for key, part in last.items() if key != "tool_calls"}]
    return value
