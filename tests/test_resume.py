"""A run that waits for a person goes on where it stopped, in another process, as a trace linked to the first."""

from collections.abc import Callable
from pathlib import Path

import pytest

import telemetry
from app.client import AgentClient
from telemetry.testing import recording
from tests.service import service
from tests.test_golden_trees import OK, check, invoked, streamed, tree


@pytest.mark.parametrize("run", [invoked, streamed])
def test_resumed_after_a_restart(tmp_path: Path, run: Callable[..., str | None]) -> None:
    """The run that goes on in another process is a trace of its own, linked to the first, in the same session."""
    with recording() as before, service(tmp_path) as url, telemetry.suppress_instrumentation():
        first = run(AgentClient(url, "interrupt", user_id="ada"), OK["interrupt"], "t-1")
        before.settled()
    with recording() as spans, service(tmp_path) as url, telemetry.suppress_instrumentation():
        client = AgentClient(url, "interrupt", user_id="ada")
        second = run(client, "yes", "t-1")
        history = client.get_history("t-1").messages
        check("interrupt", f"resumed after a restart, {run.__name__}", tree(spans, second))

    assert [message.trace_id for message in history] == [first, first, second, second, second]
    assert [message.type for message in history] == ["human", "ai", "human", "tool", "ai"]
    of_second = [span for span in spans.settled() if span.context and f"{span.context.trace_id:032x}" == second]
    (link,) = [link for span in of_second for link in span.links]
    assert f"{link.context.trace_id:032x}" == first
    for span in of_second:
        stamps = span.attributes or {}
        assert stamps["session.id"] == "t-1"
        assert stamps["langfuse.trace.metadata.resumes_trace"] == first, span.name
        assert stamps["langfuse.trace.metadata.resumes"] == history[0].run_id, span.name
    (turn,) = [span for span in of_second if span.name == "turn"]
    assert 0 <= float(str((turn.attributes or {})["langfuse.observation.metadata.waited_s"])) < 60
