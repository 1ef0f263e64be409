"""docs/spans.md is true: what it lists is made, and what is made is listed.

`SPANS=print python -m pytest tests/test_spans.py` prints what is made.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import pytest

import telemetry
from app.client import AgentClient, AgentError
from app.schema import TokenEvent
from telemetry.export import otlp
from telemetry.export.otlp import Span
from telemetry.export.stages import build_stages
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.processes import ROOT, until
from tests.service import service
from ui.tracing import chat_turn

TABLE = re.compile(r"^\| `([^|]+)` \| (\w+) \| (\w+) \| ([^|]+) \| ([^|]*) \|", re.MULTILINE)
# How a span's instrumentation scope is called in the table.
MAKERS = {
    "opentelemetry.instrumentation.fastapi": "FastAPI",
    "opentelemetry.instrumentation.httpx": "httpx",
    "openinference.instrumentation.langchain": "LangChain",
    "telemetry": "telemetry",
}
TURNS = {
    "chatbot": ["What is 12*34?", "What is 1/0?", "/fail-after 3 tell me a long story"],
    "supervisor": ["What is 12*34?"],
    "research": ["Look up sampling."],
    "interrupt": ["Book a table for 4 at 20:00.", "yes"],
    "bg-task": ["Work for 1.3 seconds."],
    "coding": ["Run `print(6*7)`"],
}


@dataclass(frozen=True)
class Row:
    """One line of the table; of a name in braces any may stand there."""

    name: str
    kind: str
    means: str
    maker: str
    attributes: frozenset[str]

    def fits(self, span: Span) -> bool:
        pattern = "".join("(?s:.+)" if part[:1] == "{" else re.escape(part) for part in re.split(r"({\w+})", self.name))
        return (span.kind, meaning(span), maker(span)) == (self.kind, self.means, self.maker) and bool(
            re.fullmatch(pattern, span.name)
        )


def meaning(span: Span) -> str:
    return str(span.attributes.get("openinference.span.kind", "none"))


def maker(span: Span) -> str:
    return MAKERS.get(span.scope, span.scope)


@cache
def rows() -> list[Row]:
    text = (ROOT / "docs" / "spans.md").read_text()
    return [Row(name, kind, means, by, keys(cell)) for name, kind, means, by, cell in TABLE.findall(text)]


def keys(cell: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", cell))


def listed(heading: str) -> frozenset[str]:
    """The attributes in the first column of the table below this heading."""
    text = (ROOT / "docs" / "spans.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return frozenset(key for row in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for key in keys(row))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Span]:
    """What every agent, every ending and every other request of the service makes, as it leaves."""
    folder = tmp_path_factory.mktemp("spans")
    stages = build_stages(Settings.model_construct())
    with recording() as spans:
        with service(folder / "fast") as url, service(folder / "slow", DEMO_PACE_S=0.05) as slow:
            for agent, messages in TURNS.items():
                for message in messages:
                    ask(AgentClient(url, agent, user_id="ada"), message, agent)
            ask_again(AgentClient(url, "chatbot", user_id="ada"))
            stop(AgentClient(slow, "chatbot", user_id="ada"))
            beside(url, folder)
        finished = [otlp.from_sdk(span) for span in spans.settled(60)]
    for stage in stages:
        finished = [stage(span) for span in finished]
    return finished


def ask(client: AgentClient, message: str, agent: str) -> None:
    with chat_turn(message, thread_id=f"t-{agent}", user_id="ada", agent=agent) as span:
        events = list(client.stream(message, thread_id=f"t-{agent}"))
        span.set_attribute("output.value", str(events[-1]))


def ask_again(client: AgentClient) -> None:
    answer = client.invoke("Hello", thread_id="again")
    assert list(client.stream(thread_id="again", replaces=answer.run_id))


def stop(client: AgentClient) -> None:
    events = client.stream("Tell me a long story", thread_id="stopped")
    run = next(events)
    next(event for event in events if isinstance(event, TokenEvent))
    client.cancel(run.run_id)  # pyright: ignore[reportAttributeAccessIssue] - the first event is the run's
    assert list(events)


def beside(url: str, folder: Path) -> None:
    """Feedback, files, events, a run in the background, a failing request."""
    client = AgentClient(url, "chatbot", user_id="ada")
    answer = client.invoke("Hello", thread_id="files")
    assert answer.run_id
    client.feedback(answer.run_id, "stars", 1)
    (folder / "note.txt").write_text("A note.")
    file = client.upload("files", folder / "note.txt")
    client.get_files("files")
    assert b"".join(client.download(file.file_id))
    client.delete_file(file.file_id)
    client.event("page_load", thread_id="files", browser="firefox")
    run = client.submit("What is 12*34?", thread_id="background")
    with telemetry.suppress_instrumentation():
        until(lambda: client.get_run(run.run_id).status == "completed", 60)
        httpx.get(f"{url}/info")
    with pytest.raises(AgentError):
        client.get_history("of somebody else")


def test_what_is_made_is_listed(made: list[Span]) -> None:
    """Every span fits one line of the table, and each of its attributes stands there or holds for all."""
    if os.environ.get("SPANS") == "print":
        show(made)
    assert [describe(span) for span in made if row_of(span) is None] == []
    everywhere = listed("On every span of a turn") | listed("How it ended")
    unlisted = {(row.name, key) for row, said in by_row(made).items() for key in said - row.attributes - everywhere}
    assert unlisted == set()


def test_what_is_listed_is_made(made: list[Span]) -> None:
    """Every line of the table is a span that was made, with each of the attributes that it promises."""
    said = by_row(made)
    assert rows()
    assert {(row.name, key) for row in rows() for key in row.attributes - said.get(row, set())} == set()
    assert [row.name for row in rows() if row not in said] == []
    everywhere = listed("On every span of a turn") | listed("How it ended")
    assert everywhere - attributes(made) == set()


def row_of(span: Span) -> Row | None:
    """The first line that the span fits."""
    return next((row for row in rows() if row.fits(span)), None)


def by_row(spans: Iterable[Span]) -> dict[Row, set[str]]:
    """The attributes of the spans of each line."""
    found: dict[Row, set[str]] = defaultdict(set)
    for span in spans:
        if row := row_of(span):
            found[row] |= attributes([span])
    return found


def attributes(spans: Iterable[Span]) -> set[str]:
    """The attributes' names; of a caller's own, and of counts that may or may not be there, the family."""
    return {re.sub(r"^(event|progress)\..+", r"\1.*", key) for span in spans for key in span.attributes}


def describe(span: Span) -> str:
    return f"{span.name} | {span.kind} | {meaning(span)} | {maker(span)}"


def show(spans: list[Span]) -> None:
    grouped: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        grouped[describe(span)].append(span)
    for name, same in sorted(grouped.items()):
        print(f"{name} | {' '.join(sorted(f'`{key}`' for key in attributes(same)))}")  # noqa: T201 - it is what was asked for
