"""A turn of the page: its thread, its span, its end, whatever happens to the service."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from app.client import AgentClient
from app.schema import TokenEvent
from telemetry.testing import Recorded
from tests.processes import free_port, serve, until
from tests.service import service
from ui.turn_registry import ChatTurn, TurnRegistry

pytestmark = pytest.mark.usefixtures("spans")

FOUND_BY = ("session.id", "user.id", "langfuse.trace.name")


def run(turn: ChatTurn) -> ChatTurn:
    turn.start()
    until(lambda: turn.done)
    return turn


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, DEMO_PACE_S=0.01) as url:
        yield AgentClient(url, "chatbot", user_id="ada")


@pytest.fixture
def failing() -> Iterator[str]:
    """A service whose turns fail, whose streams break off on request, and which cannot cancel."""
    app = FastAPI()
    run_event = 'data: {"type": "run", "run_id": "r-1", "trace_id": null, "thread_id": "t", "sampled": false}\n\n'
    error = 'data: {"type": "error", "error": "ModelError", "message": "The model is away.\\nCome again."}\n\n'

    @app.post("/{agent}/stream")
    def stream(agent: str) -> StreamingResponse:
        end = "data: [DONE]\n\n" if agent == "failing" else ""
        pieces = [run_event, error if agent == "failing" else "", end]
        return StreamingResponse(iter(pieces), media_type="text/event-stream")

    with serve(app) as url:
        yield url


def test_one_turn_is_one_trace_with_the_page_at_its_root(client: AgentClient, spans: Recorded) -> None:
    """The root span carries the message, the answer and what a turn is found by, and the service's part hangs below."""
    turn = run(ChatTurn(client, "t-1", "What is 6 * 7?"))

    tree = spans.tree(FOUND_BY).splitlines()
    assert tree[0] == "chat turn session.id=t-1 user.id=ada langfuse.trace.name=chatbot"
    assert [line for line in tree if not line.startswith(" ")] == tree[:1]
    assert any("SERVER" in line for line in tree)
    root = next(span for span in spans.settled() if span.name == "chat turn")
    assert root.attributes
    assert root.attributes["input.value"] == "What is 6 * 7?"
    assert root.attributes["output.value"] == turn.exchange().answer
    assert "42" in turn.exchange().answer


def test_a_turn_that_waits_tells_what_it_asks(client: AgentClient, spans: Recorded) -> None:
    """The page's span and the service's have the question that a person was left with."""
    client.agent = "interrupt"
    turn = run(ChatTurn(client, "t-1", "Book a table for 4 at 19:30"))

    [asked] = turn.exchange().questions
    for name in ("chat turn", "turn"):
        span = next(span for span in spans.settled() if span.name == name)
        assert json.loads(str((span.attributes or {})["output.value"])) == asked, name


def test_a_stopped_turn_ends_soon_and_is_no_failure(client: AgentClient, spans: Recorded) -> None:
    """Stopping keeps what was said, ends every span and marks none of them as an error."""
    turn = ChatTurn(client, "t-1", "Tell me a long story")
    turn.start()
    until(lambda: "river" in turn.exchange().answer)
    turn.stop()
    until(lambda: turn.done)

    assert turn.exchange().status == "cancelled"
    assert "ERROR" not in spans.tree()


def test_a_turn_can_be_stopped_before_it_has_a_run(client: AgentClient) -> None:
    """Who stops at once is not forgotten: the run is cancelled as soon as it has a name."""
    turn = ChatTurn(client, "t-1", "Tell me a long story")
    turn.stop()
    assert run(turn).exchange().status == "cancelled"


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [("failing", "The model is away."), ("broken", "The answer was cut off before it was complete.")],
)
def test_a_failed_turn_is_an_error_in_one_line(failing: str, spans: Recorded, agent: str, sentence: str) -> None:
    """What the service reports or leaves out makes the root span an error whose status is one line."""
    turn = run(ChatTurn(AgentClient(failing, agent), "t-1", "hi"))

    root = next(span for span in spans.settled() if span.name == "chat turn")
    assert root.status.description == f"Failed: {sentence}"
    seen = turn.exchange()
    assert (seen.error or "").startswith(sentence)
    assert root.context
    assert seen.trace_id == f"{root.context.trace_id:032x}"


def test_a_service_without_cancel_does_not_break_the_page(failing: str) -> None:
    """A refused cancel is told to the log and to nobody else."""
    turn = ChatTurn(AgentClient(failing, "failing"), "t-1", "hi")
    turn.stop()
    assert run(turn).exchange().run_id == "r-1"


def test_a_thread_answers_one_message_at_a_time(client: AgentClient) -> None:
    """A second page on the thread cannot begin a turn before the first one's is over."""
    turns = TurnRegistry()
    first = ChatTurn(client, "t-1", "Tell me a long story")
    assert turns.start(first)
    assert not turns.start(ChatTurn(client, "t-1", "hi"))
    assert turns.latest("ada", "t-1") is first
    turns.stop()
    until(lambda: first.done)
    second = ChatTurn(client, "t-1", "hi")
    assert turns.start(second)
    until(lambda: second.done)


def test_another_users_turn_is_out_of_sight(client: AgentClient) -> None:
    """Who knows a thread's name does not see its turn."""
    turns = TurnRegistry()
    turns.start(turn := ChatTurn(client, "t-1", "hi"))
    until(lambda: turn.done)
    assert turns.latest("grace", "t-1") is None


def test_nobody_there_is_told_with_the_trace(spans: Recorded) -> None:
    """An unreachable service leaves a sentence and an ended span of ours."""
    turn = run(ChatTurn(AgentClient(f"http://127.0.0.1:{free_port()}"), "t-1", "hi"))

    assert (turn.exchange().error or "").startswith("No agent service answers at http://127.0.0.1:")
    assert turn.exchange().trace_id
    assert "chat turn ERROR" in spans.tree()


def test_a_limit_is_told_in_its_sentence(tmp_path: Path) -> None:
    """A message beyond a limit shows when it can be sent again, and begins nothing."""
    with service(tmp_path, MAX_MESSAGES_PER_MINUTE=1) as url:
        client = AgentClient(url, "chatbot", user_id="ada")
        assert run(ChatTurn(client, "t-1", "Hello")).exchange().error is None
        seen = run(ChatTurn(client, "t-1", "Hello again")).exchange()

    assert (seen.error or "").startswith("You have sent 1 messages within a minute: try again in ")
    assert seen.run_id is None


def test_files_go_before_the_message_in_the_same_trace(client: AgentClient, spans: Recorded) -> None:
    """The upload is part of the turn's trace, and the agent finds the file there."""
    turn = run(ChatTurn(client, "t-1", "Read the file notes.txt", files=[named("notes.txt", b"The river is long.")]))

    assert "The river is long." in turn.exchange().answer
    assert [file.name for file in turn.exchange().uploads] == ["notes.txt"]
    tree = spans.tree()
    assert tree.index("upload file") < tree.index("turn AGENT")
    assert [line for line in tree.splitlines() if not line.startswith(" ")] == ["chat turn"]


def test_a_message_waits_for_its_refused_file(client: AgentClient) -> None:
    """Every refusal is told, what was taken is kept, and nothing is asked."""
    files = [named("a.exe", b"MZ" + bytes(99)), named("b.txt", b"b"), named("c.exe", b"MZ" + bytes(99))]
    seen = run(ChatTurn(client, "t-1", "Read them", files=files)).exchange()

    assert seen.refused
    assert [line.partition(":")[0] for line in (seen.error or "").split("\n\n")] == ["a.exe", "c.exe"]
    assert (seen.run_id, [file.name for file in seen.uploads]) == (None, ["b.txt"])


def test_a_long_answer_is_kept_as_text(client: AgentClient) -> None:
    """What a turn holds on to does not grow with the number of its words; they are all there, in order."""
    told = (
        ChatTurn(client, "t-1", "Tell me a story of 20 words"),
        ChatTurn(client, "t-2", "Tell me a story of 300 words"),
    )
    short, long = (run(turn) for turn in told)

    assert len(long._events) == len(short._events)
    assert len(long.exchange().answer.split()) >= 300
    tokens = [event.content for event in long._events if isinstance(event, TokenEvent)]
    assert tokens == [long.exchange().answer]


def test_memory_stays_flat(client: AgentClient) -> None:
    """Of the turns that are over only the latest are kept; one that is deleted is not."""
    turns = TurnRegistry(max_finished=3)
    for number in range(6):
        turns.start(turn := ChatTurn(client, f"t-{number}", "hi"))
        until(lambda: turn.done)

    kept = [number for number in range(6) if turns.latest("ada", f"t-{number}")]
    assert kept == [2, 3, 4, 5]
    turns.forget("ada", "t-5")
    assert turns.latest("ada", "t-5") is None


def test_memory_is_bounded_by_what_was_said(client: AgentClient) -> None:
    """Of the turns that are over as many are kept as are short enough together; the one under way always is."""
    turns = TurnRegistry(max_characters=10_000)
    for number in range(4):
        turns.start(turn := ChatTurn(client, f"t-{number}", "hi" * 2_000))
        until(lambda turn=turn: turn.done)
        assert turn.size > 4_000

    kept = [number for number in range(4) if turns.latest("ada", f"t-{number}")]
    assert kept[-1] == 3
    assert 0 not in kept


def named(name: str, content: bytes) -> BytesIO:
    file = BytesIO(content)
    file.name = name  # pyright: ignore[reportAttributeAccessIssue] - as an uploaded file has one
    return file
