"""Every tool call says how it went, how long it took and how much came out, without a word in the tool."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import ToolException, tool
from opentelemetry.sdk.trace import ReadableSpan

from app.client import AgentClient
from telemetry.export import otlp
from telemetry.export.stages import build_stages
from telemetry.settings import Settings
from telemetry.testing import Recorded
from tests.service import service

SECRET = "sk-lf-0a1b2c3d-4e5f-6789-abcd-ef0123456789"


@pytest.fixture
def url(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path) as address:
        yield address


def named(spans: Recorded, name: str) -> list[ReadableSpan]:
    return sorted((s for s in spans.settled() if s.name == name), key=lambda s: s.start_time or 0)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_call_that_goes_well(url: str, spans: Recorded) -> None:
    """Success, duration, the size and the hash of exactly what the model is given."""
    AgentClient(url, "chatbot").invoke("What is 12*34?")

    (call,) = named(spans, "calculator")
    said = attributes(call)
    assert (said["tool.success"], said["tool.retries"], said["tool.output_bytes"]) == (True, 0, 3)
    assert said["output.sha256"] == sha256(b"408").hexdigest()
    assert 0 <= said["tool.duration_ms"] < 5_000


def test_a_failure_that_the_graph_handles_counts(url: str, spans: Recorded) -> None:
    """A tool's error is on its span and counts on the turn, though the answer goes well; the second call is a retry."""
    AgentClient(url, "research").invoke("read Session")

    first, second = [attributes(call) for call in named(spans, "read_passage")]
    assert (first["tool.success"], first["tool.retries"]) == (False, 0)
    assert (second["tool.success"], second["tool.retries"]) == (True, 1)
    (turn,) = named(spans, "turn")
    assert (attributes(turn)["turn.status"], attributes(turn)["turn.tool_errors"]) == ("completed", 1)


async def test_a_tool_that_words_its_own_failure(spans: Recorded) -> None:
    """A tool that answers its failure in words has failed all the same."""

    @tool
    def stubborn() -> str:
        """Refuse."""
        raise ToolException("no")

    stubborn.handle_tool_error = True
    await stubborn.ainvoke({"name": "stubborn", "args": {}, "id": "1", "type": "tool_call"})

    (call,) = named(spans, "stubborn")
    assert attributes(call)["tool.success"] is False


@pytest.mark.parametrize("shape", ["langfuse", "openinference"])
async def test_the_preview_is_short_and_without_secrets(spans: Recorded, shape: str) -> None:
    """The preview is one line of at most 200 characters, cut from the redacted input: no half of a secret is left."""

    @tool
    def look(at: str) -> str:
        """Look."""
        return at[:1]

    await look.ainvoke({"at": "x " * 84 + SECRET + "\nand more " * 100})
    (call,) = named(spans, "look")
    span = otlp.from_sdk(call)
    for stage in build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape})):
        span = stage(span)

    preview = span.attributes["input.preview"]
    assert len(preview) <= 200
    assert "\n" not in preview
    assert SECRET[:12] not in preview
    assert preview.endswith("…")


async def test_hidden_inputs_have_no_preview(spans: Recorded) -> None:
    """What is kept back is not shown in short either."""

    @tool
    def look(at: str) -> str:
        """Look."""
        return at

    await look.ainvoke({"at": "the garden"})
    span = otlp.from_sdk(named(spans, "look")[0])
    for stage in build_stages(
        Settings.model_validate({"OPENINFERENCE_HIDE_INPUTS": True, "OPENINFERENCE_HIDE_OUTPUTS": True})
    ):
        span = stage(span)

    assert "input.preview" not in span.attributes
    assert "output.sha256" not in span.attributes
    assert span.attributes["tool.output_bytes"] == 10
