"""A session in a backend is the turns of a conversation, and nothing beside them."""

from collections import defaultdict
from pathlib import Path

import telemetry
from app.client import AgentClient
from telemetry.testing import Recorded
from tests.app.test_events import url  # noqa: F401 - a fixture
from ui.tracing import chat_turn


def test_a_session_is_its_turns(url: str, spans: Recorded, tmp_path: Path) -> None:  # noqa: F811 - see above
    """Three turns, one of them with an upload; page load, vote, stop and another file are beside the session."""
    client, thread = AgentClient(url, "chatbot", user_id="ada"), "t-1"
    note = tmp_path / "note.txt"
    note.write_text("A note.")
    turns: list[str] = []
    client.event("page_load", thread)
    for message in ("Hello", "What is 12*34?", "Bye"):
        with chat_turn(message, thread_id=thread, user_id="ada", agent="chatbot") as root:
            if message == "Bye":
                client.upload(thread, note)
            answer = client.invoke(message, thread_id=thread)
        turns.append(f"{root.get_span_context().trace_id:032x}")
        assert answer.run_id
        client.feedback(answer.run_id, "user_thumbs", 1)
        client.event("stop", thread)
    client.upload(thread, note)
    client.get_files(thread)

    sessions: dict[str, set[object]] = defaultdict(set)
    threads: dict[str, set[object]] = defaultdict(set)
    for span in spans.settled():
        assert span.context
        assert span.attributes is not None
        trace_id = f"{span.context.trace_id:032x}"
        sessions[trace_id].add(span.attributes.get("session.id"))
        threads[trace_id].add(span.attributes.get("langfuse.trace.metadata.thread"))
    assert {trace_id: said for trace_id, said in sessions.items() if said != {None}} == {key: {thread} for key in turns}
    assert len(sessions) == 3 + 1 + 3 + 3 + 2
    assert all(thread in said for said in threads.values())


def test_feedback_is_linked_to_its_run(url: str, spans: Recorded) -> None:  # noqa: F811 - see above
    """The vote's own trace says which run it is about, and links to it."""
    client = AgentClient(url, "chatbot", user_id="ada")
    with telemetry.suppress_instrumentation():
        answer = client.invoke("Hello", thread_id="t-1")
    assert answer.run_id
    client.feedback(answer.run_id, "user_thumbs", 1)

    (vote,) = [span for span in spans.settled() if span.name == "feedback"]
    assert [f"{link.context.trace_id:032x}" for link in vote.links] == [answer.trace_id]
    assert (vote.attributes or {})["langfuse.trace.metadata.run"] == answer.run_id
