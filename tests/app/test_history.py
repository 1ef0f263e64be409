"""What a thread's history says of its turns, so that a page shows after a reload what it showed before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.client import AgentClient
from app.schema import ChatHistory, EndEvent, Figures, TurnInfo
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.processes import until
from tests.service import service

LINK = "http://traces.test/{trace_id}"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with recording(Settings.model_validate({"TRACE_URL": LINK})), service(tmp_path, MODEL_PRICES="demo=1/2") as url:
        yield url


def history(url: str, thread_id: str = "t-1") -> ChatHistory:
    return AgentClient(url).get_history(thread_id)


def test_a_turn_has_the_figures_that_its_stream_ended_with(url: str) -> None:
    """Time, first token, tokens of all its calls and their cost are in the last event and ever after."""
    *_, end = AgentClient(url, "chatbot").stream("What is 6 * 7?", thread_id="t-1")
    [turn] = history(url).turns

    assert isinstance(end, EndEvent)
    assert end.figures == turn.figures
    figures = turn.figures
    assert (figures.duration_ms or 0) >= (figures.first_token_ms or 0) > 0
    assert figures.cost == ((figures.input_tokens or 0) + 2 * (figures.output_tokens or 0)) / 1e6 > 0
    assert (turn.status, turn.error, turn.trace_url) == ("completed", None, LINK.format(trace_id=turn.trace_id))


def test_tokens_of_sub_agents_count(url: str) -> None:
    """A supervisor's turn holds what its workers' models took, beyond its own two calls."""
    alone, led = (list(AgentClient(url, agent).stream("What is 6 * 7?"))[-1] for agent in ("chatbot", "supervisor"))
    assert isinstance(alone, EndEvent)
    assert isinstance(led, EndEvent)
    assert alone.figures
    assert led.figures
    assert (led.figures.input_tokens or 0) > (alone.figures.input_tokens or 0)


def test_a_sub_agent_is_named(url: str) -> None:
    """What a worker says and does carries its name, what the agent itself says does not."""
    events = [each for each in AgentClient(url, "supervisor").stream("What is 6 * 7?") if each.type == "message"]
    named = [
        ((each.agent or "").partition(":")[0], each.content.tool_calls[0].name)
        for each in events
        if each.content.tool_calls
    ]

    assert named == [("", "transfer_to_math"), ("math", "calculator")]


def test_a_failed_turn_keeps_its_error(url: str) -> None:
    """What went wrong is there after a reload, in the words of the stream."""
    events = list(AgentClient(url, "chatbot").stream("/fail", thread_id="t-1"))
    [turn] = history(url).turns

    assert turn.status == "failed"
    assert turn.error == next(each.message for each in events if each.type == "error")


def test_an_open_question_is_told_until_it_is_answered(url: str) -> None:
    """A thread that waits says for what; the answer ends that, and what was asked stays with its turn."""
    client = AgentClient(url, "interrupt")
    client.invoke("Book a table for 4 at 19:30", thread_id="t-1")
    [asked] = history(url).waiting
    assert asked.value["options"] == ["yes", "no"]

    client.invoke("yes", thread_id="t-1")
    assert history(url).waiting == []
    assert [turn.status for turn in history(url).turns] == ["waiting", "completed"]
    assert [turn.asked for turn in history(url).turns] == [[asked.value], []]


def test_votes_come_back(url: str) -> None:
    """The user's latest word on each answer stands with it, until it is taken back or the thread is gone."""
    client = AgentClient(url)
    first, second = (client.invoke("Hello", thread_id="t-1").run_id or "" for _ in range(2))
    client.feedback(first, "thumbs", True)
    client.feedback(first, "thumbs", False, comment="Wrong.")
    client.feedback(second, "stars", 0.5)
    assert [[vote.model_dump() for vote in turn.votes] for turn in history(url).turns] == [
        [{"key": "thumbs", "score": False, "comment": "Wrong."}],
        [{"key": "stars", "score": 0.5, "comment": None}],
    ]

    client.feedback(first, "thumbs", None)
    assert history(url).turns[0].votes == []
    client.delete_thread("t-1")
    client.invoke("Hello", thread_id="t-1")
    assert [turn.votes for turn in history(url).turns] == [[]]


def test_files_stand_in_the_history(url: str) -> None:
    """What was put into a thread is listed with it, and the thread is the agent's that was asked first."""
    client = AgentClient(url, "coding")
    file = client.upload("t-1", b"a,b\n", "table.csv")
    client.invoke("Hello", thread_id="t-1")

    assert [each.file_id for each in history(url).files] == [file.file_id]
    assert history(url).agent == "coding"
    assert [each.agent for each in client.get_threads().threads] == ["coding"]


def test_a_turn_without_a_price_has_no_cost(tmp_path: Path) -> None:
    """What a model costs is not guessed."""
    with service(tmp_path) as url:
        AgentClient(url).invoke("Hello", thread_id="t-1")
        [turn] = history(url).turns
    assert turn.figures.input_tokens
    assert turn.figures.cost is None


def test_a_background_run_has_its_figures_too(url: str) -> None:
    """A run's tokens and time are in the thread's history when it is over."""
    run = AgentClient(url, "chatbot").submit("What is 6 * 7?", thread_id="t-1")
    turn = until(lambda: over(url), 60)
    assert turn

    assert (turn.run_id, turn.status) == (run.run_id, "completed")
    assert turn.figures.output_tokens
    [shown] = AgentClient(url).get_runs().runs
    assert (shown.message, shown.created is not None) == ("What is 6 * 7?", True)


def over(url: str) -> TurnInfo | None:
    found = history(url).turns
    return next((turn for turn in found if turn.status == "completed" and turn.figures != Figures()), None)
