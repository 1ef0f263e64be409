"""What happens in a front end is seen in the thread's session."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AgentClient
from telemetry.testing import Recorded
from tests.service import service


@pytest.fixture
def url(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path) as address:
        yield address


@pytest.mark.parametrize("name", ["page_load", "file_upload", "stop", "feedback"])
def test_an_action_is_one_span(url: str, spans: Recorded, name: str) -> None:
    """Each action is one span of the thread and its user, with what is told about it; its trace is called after it."""
    recorded = AgentClient(url, user_id="ada").event(name, "t-1", size=5)

    tree = spans.tree(["langfuse.trace.metadata.thread", "user.id", "event.size"])
    assert f"{name} langfuse.trace.metadata.thread=t-1 user.id=ada event.size=5.0" in tree
    assert "POST /events SERVER langfuse.trace.name=" + name in spans.tree(["langfuse.trace.name"])
    assert recorded.trace_id in {f"{span.context.trace_id:032x}" for span in spans.settled() if span.context}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "delete_everything"}, "name"),
        ({"name": "page_load", "about": {"a b": 1}}, "about"),
        ({"name": "page_load", "about": {"a": "x" * 201}}, "about"),
        ({"name": "page_load", "about": {f"a{n}": n for n in range(21)}}, "about"),
        ({"name": "page_load", "thread_id": "../x"}, "thread_id"),
    ],
)
def test_a_bad_event_is_refused(url: str, body: dict[str, Any], words: str) -> None:
    """What is no action of a front end is a 422 with a sentence."""
    response = httpx.post(f"{url}/events", json=body)

    assert (response.status_code, words in response.json()["detail"]) == (422, True)


def test_nobody_writes_into_anothers_session(url: str) -> None:
    """An event on somebody else's thread is refused as if there were no such thread."""
    AgentClient(url, user_id="ada").invoke("Hello", thread_id="t-1")
    response = httpx.post(f"{url}/events", json={"name": "stop", "thread_id": "t-1", "user_id": "bob"})

    assert response.status_code == 404
