"""docs/attributes.md is true: each attribute of a turn, and the formats in which it is sent.

`ATTRIBUTES=write python -m pytest tests/test_attributes.py` writes the table anew.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from app.client import AgentClient
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare_all
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.processes import ROOT
from tests.service import service
from ui.tracing import chat_turn

SHAPES: Sequence[str] = get_args(Settings.model_fields["shape"].annotation)
DOCUMENT = ROOT / "docs" / "attributes.md"
HEAD, TAIL = "<!-- table -->\n", "<!-- end of the table -->\n"
QUESTION = "Look up sampling."
# What the spans of this turn are, by their names.
SPANS = {
    "chat turn": "the page's `chat turn`",
    "POST agent-api /{agent_id}/stream": "the page's request",
    "POST /{agent_id}/stream": "the service's request",
    "turn": "`turn`",
    "stream": "`stream`",
    "research": "the graph",
    "model": "a node",
    "tools_condition": "an edge",
    "DemoModel": "a model call",
    "search": "a tool call",
    "KeywordRetriever": "a retrieval",
}
EVERYWHERE = "every span"


@pytest.fixture(scope="module")
def spans(tmp_path_factory: pytest.TempPathFactory) -> Sequence[ReadableSpan]:
    """The spans of a streamed turn with a tool call and a retrieval."""
    with recording(Settings.model_construct(langchain="recorder")) as recorded:
        with service(tmp_path_factory.mktemp("attributes"), MODEL_PRICES="demo=1.5/2.5") as url:
            client = AgentClient(url, "research", user_id="ada")
            with chat_turn(QUESTION, thread_id="t-1", user_id="ada", agent="research") as root:
                root.set_attribute("output.value", str(list(client.stream(QUESTION, thread_id="t-1"))[-1]))
        return recorded.settled(60)


def sent(spans: Sequence[ReadableSpan], shape: str) -> dict[str, set[str]]:
    """The attributes of each kind of span in this format."""
    stages = build_stages(Settings.model_validate({"TELEMETRY_SHAPE": shape}))
    found: dict[str, set[str]] = {name: set() for name in SPANS.values()}
    for span in otlp.decode(b"".join(prepare_all(spans, stages)), "application/x-protobuf"):
        if name := SPANS.get(span.name):
            found[name] |= {_family(key) for key in span.attributes}
    return found


def _family(key: str) -> str:
    return re.sub(r"\.\d+\..*", ".*", key)


def table(spans: Sequence[ReadableSpan]) -> str:
    """A line for each attribute of each kind of span; those of all spans of a format stand before them."""
    by_shape = {shape: sent(spans, shape) for shape in SHAPES}
    common = {shape: set.intersection(*found.values()) for shape, found in by_shape.items()}
    rows = _rows(EVERYWHERE, common)
    for name in SPANS.values():
        rows += _rows(name, {shape: found[name] - common[shape] for shape, found in by_shape.items()})
    head = f"| on | attribute | {' | '.join(f'`{shape}`' for shape in SHAPES)} |"
    return "\n".join([head, "|---|---|" + ":-:|" * len(SHAPES), *rows, ""])


def _rows(name: str, keys: dict[str, set[str]]) -> list[str]:
    return [
        f"| {name} | `{key}` | {' | '.join('●' if key in keys[shape] else '' for shape in SHAPES)} |"
        for key in sorted(set.union(*keys.values()))
    ]


def test_the_table_is_true(spans: Sequence[ReadableSpan]) -> None:
    """What is listed is sent, and what is sent is listed, in each format."""
    assert all(sent(spans, "langfuse").values())
    before, _, rest = DOCUMENT.read_text().partition(HEAD)
    written, _, after = rest.partition(TAIL)
    if os.environ.get("ATTRIBUTES") == "write":
        Path(DOCUMENT).write_text(f"{before}{HEAD}{table(spans)}{TAIL}{after}")
        return
    assert written == table(spans)


def test_every_format_has_its_own_names(spans: Sequence[ReadableSpan]) -> None:
    """Only where it is asked for are there names of several conventions for the same content."""
    models = {shape: sent(spans, shape)["a model call"] for shape in SHAPES}

    own = {
        "langfuse": "langfuse.observation.input",
        "openinference": "input.value",
        "genai": "gen_ai.input.messages",
    }
    for shape, key in own.items():
        assert models[shape] & set(own.values()) == {key}
    assert models["all"] >= set(own.values())
