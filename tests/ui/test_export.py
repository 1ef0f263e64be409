"""A thread as a document."""

import json

from app.schema import ChatHistory, ChatMessage, ToolCall
from ui.export import as_json, as_markdown

HISTORY = ChatHistory(
    messages=[
        ChatMessage(type="human", content="What is 1/0?", run_id="r-1"),
        ChatMessage(type="ai", content="", run_id="r-1", tool_calls=[ToolCall(name="calculator", args={}, id="c-1")]),
        ChatMessage(type="tool", content="division by zero", run_id="r-1", tool_call_id="c-1"),
        ChatMessage(type="ai", content="It **cannot** be done.", run_id="r-1"),
    ]
)


def test_markdown_has_what_was_said() -> None:
    """Questions, tools by name, and answers, in their order and with their own marks."""
    assert as_markdown("What\nis 1/0?", HISTORY) == (
        "# What is 1/0?\n\n**You:** What is 1/0?\n\n**Agent:** *Used calculator.*\n\nIt **cannot** be done.\n"
    )


def test_json_has_everything() -> None:
    """It is the service's own history, and reads back as that."""
    assert ChatHistory.model_validate(json.loads(as_json(HISTORY))) == HISTORY
