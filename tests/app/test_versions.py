"""A question that is asked again, or edited: both versions stay, each with its run and trace, and one is shown."""

import pytest

from app.client import AgentClient, Refused
from app.schema import ChatHistory, EndEvent, RunEvent
from telemetry.testing import Recorded
from tests.app.storage import Storage
from tests.processes import until

THREAD = "t-1"


def ask(client: AgentClient, message: str | None = None, replaces: str | None = None) -> str:
    """The id of the run that answered this message."""
    events = list(client.stream(message, thread_id=THREAD, replaces=replaces))
    assert isinstance(events[0], RunEvent)
    assert isinstance(events[-1], EndEvent)
    return events[0].run_id


def said(history: ChatHistory) -> list[str]:
    """The questions and the answers of what is shown."""
    return [message.content for message in history.messages if message.content]


def hello(name: str) -> list[str]:
    return [f"My name is {name}.", f"Nice to meet you, {name}. I will remember your name in this conversation."]


def test_an_edited_question_goes_on_from_what_was_said_before(storage: Storage) -> None:
    """The agent knows what precedes the question, nothing after it; each version can be shown, after a restart too."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        first, second = ask(client, "Hello"), ask(client, "My name is Ada.")
        third = ask(client, "What is my name?")
        edited = ask(client, "My name is Grace.", replaces=second)
        history = client.get_history(THREAD)
        assert said(history)[2:] == hello("Grace")
        assert [turn.run_id for turn in history.turns] == [first, edited]
        assert [turn.versions for turn in history.turns] == [[], [second, edited]]
        assert client.get_thread(THREAD).run_id == edited
        last = ask(client, "What is my name?")
        assert said(client.get_history(THREAD))[-1] == "Your name is Grace."
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        assert [turn.run_id for turn in client.get_history(THREAD).turns] == [first, edited, last]
        assert client.show_version(THREAD, second).run_id == third
        history = client.get_history(THREAD)
        assert said(history)[2:] == [*hello("Ada"), "What is my name?", "Your name is Ada."]
        assert [turn.run_id for turn in history.turns] == [first, second, third]
        client.show_version(THREAD, edited)
        assert said(client.get_history(THREAD))[-1] == "Your name is Grace."


def test_a_regenerated_answer_is_a_version_of_the_first(storage: Storage) -> None:
    """Whichever of them is asked again, all are versions of one question, in the order in which they were asked."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        runs = [ask(client, "My name is Ada.")]
        for _ in range(3):
            runs.append(ask(client, replaces=runs[-1]))
        for run in runs:
            client.show_version(THREAD, run)
            history = client.get_history(THREAD)
            assert [turn.versions for turn in history.turns] == [runs]
            assert [turn.run_id for turn in history.turns] == [run]
            assert said(history) == hello("Ada")
        # A branch of a branch.
        follow_up = ask(client, "What is my name?")
        again = ask(client, replaces=follow_up)
        assert [turn.versions for turn in client.get_history(THREAD).turns] == [runs, [follow_up, again]]
        client.show_version(THREAD, runs[0])
        client.show_version(THREAD, follow_up)
        assert [turn.run_id for turn in client.get_history(THREAD).turns] == [runs[-1], follow_up]


def test_nothing_is_left_of_a_deleted_thread_with_versions(storage: Storage) -> None:
    """Checkpoints of all its branches are gone, and each branch kept its latest only."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        ask(client, "Hello")
        second = ask(client, "My name is Ada.")
        ask(client, "My name is Grace.", replaces=second)
        ask(client, "What is 6 * 7?")
        until(lambda: storage.count("checkpoints") == 2, 20)
        client.rename_thread(THREAD, "Names")
        client.delete_thread(THREAD)
        for table in ("checkpoints", "run_branches", "shown_branches", "thread_titles", "run_words"):
            assert storage.count(table) == 0, table


def test_a_stopped_question_is_replaced(storage: Storage) -> None:
    """What a failed turn has left is no part of the version that replaces it."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        ask(client, "Hello")
        failed = ask(client, "/fail")
        ask(client, "My name is Ada.", replaces=failed)
        history = client.get_history(THREAD)
        assert said(history)[2:] == hello("Ada")
        assert [turn.status for turn in history.turns] == ["completed", "completed"]


def test_the_version_of_a_question_asks_no_more(storage: Storage) -> None:
    """A thread that waits for an answer can be asked something else in its place, also by another agent."""
    with storage.service() as url:
        asking, other = AgentClient(url, "interrupt"), AgentClient(url, "chatbot")
        waiting = ask(asking, "Book a table for 4 at 19:30")
        ask(other, "My name is Ada.", replaces=waiting)
        assert said(other.get_history(THREAD)) == hello("Ada")
        assert other.get_history(THREAD).waiting == []
        asking.show_version(THREAD, waiting)
        assert len(asking.get_history(THREAD).waiting) == 1
        answered = ask(asking, "yes")
        assert asking.get_history(THREAD).turns[-1].resumed
        with pytest.raises(Refused, match="answered a question") as refused:
            ask(asking, "no", replaces=answered)
        assert refused.value.status == 409


def test_background_runs_have_versions(storage: Storage) -> None:
    """A run that replaces another goes on from the same messages."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        ask(client, "My name is Ada.")
        second = ask(client, "Hello")
        run = client.submit("What is my name?", thread_id=THREAD, replaces=second)
        until(lambda: client.get_run(run.run_id).status == "completed", 60)
        history = client.get_history(THREAD)
        assert said(history)[2:] == ["What is my name?", "Your name is Ada."]
        assert history.turns[-1].versions == [second, run.run_id]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"replaces": "none", "thread_id": THREAD}, 404),
        ({"replaces": "none"}, 422),
        ({"replaces": "none", "thread_id": THREAD, "answers": {"q": "yes"}}, 422),
    ],
)
def test_what_cannot_be_replaced_is_refused(storage: Storage, body: dict[str, object], status: int) -> None:
    """In words, and nothing is asked."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        ask(client, "Hello")
        with pytest.raises(Refused) as refused:
            client.invoke("Hello", **body)  # pyright: ignore[reportArgumentType] - what a wrong client may send
        assert refused.value.status == status
        with pytest.raises(Refused) as unknown:
            client.show_version(THREAD, "none")
        assert unknown.value.status == 404
        assert len(client.get_history(THREAD).turns) == 1


def test_other_users_see_and_choose_no_version(storage: Storage) -> None:
    """A thread, its title and its versions are its owner's."""
    with storage.service() as url:
        ada, bob = (AgentClient(url, "chatbot", user_id=user) for user in ("ada", "bob"))
        run = ask(ada, "Hello")
        for attempt in (
            lambda: bob.show_version(THREAD, run),
            lambda: bob.rename_thread(THREAD, "Mine"),
            lambda: ask(bob, "Hello", replaces=run),
        ):
            with pytest.raises(Refused) as refused:
                attempt()
            assert refused.value.status == 404
        # A run of another thread, which is not the thread's.
        bob.invoke("Hello", thread_id="t-2")
        with pytest.raises(Refused):
            bob.invoke("Hello", thread_id="t-2", replaces=run)


def test_no_version_is_chosen_while_the_thread_answers(storage: Storage) -> None:
    """The choice is refused until the turn has ended."""
    with storage.service(DEMO_PACE_S=0.05) as url:
        client = AgentClient(url, "chatbot")
        run = ask(client, "Hello")
        events = client.stream("Tell me a long story", thread_id=THREAD)
        started = next(events)
        assert isinstance(started, RunEvent)
        with pytest.raises(Refused, match="already answering"):
            client.show_version(THREAD, run)
        client.rename_thread(THREAD, "A story")
        assert client.get_threads().threads[0].title == "A story"
        assert client.get_threads().threads[0].status == "running"
        client.cancel(started.run_id)
        assert list(events)


def test_the_trace_names_what_it_replaces(spans: Recorded, storage: Storage) -> None:
    """Every span of a version names the run and the trace that it replaces."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        first = ask(client, "Hello")
        ask(client, replaces=first)
    ended = spans.settled()
    original, version = sorted((span for span in ended if span.name == "turn"), key=lambda span: span.start_time or 0)
    assert original.context
    assert version.context
    named = [
        (span.attributes or {}).get("langfuse.trace.metadata.replaces")
        for span in ended
        if span.context and span.context.trace_id == version.context.trace_id and "turn" in span.name
    ]
    assert named == [first]
    trace = (version.attributes or {}).get("langfuse.trace.metadata.replaces_trace")
    assert trace == f"{original.context.trace_id:032x}"
    assert "langfuse.trace.metadata.replaces" not in (original.attributes or {})


def test_a_turn_has_its_tree_once_it_is_over(spans: Recorded, storage: Storage) -> None:
    """Names, times and tokens of its spans are there after a restart too, for its user alone, until it is deleted."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot", user_id="ada")
        run = ask(client, "What is 6 * 7?")
        until(lambda: client.get_spans(run).spans, 20)
        job = client.submit("Hello", thread_id="t-2").run_id
        until(lambda: client.get_spans(job).spans, 60)
    with storage.service() as url:
        client = AgentClient(url, "chatbot", user_id="ada")
        tree = client.get_spans(run).spans
        assert (tree[0].name, tree[0].depth, tree[0].start_ms) == ("turn", 0, 0)
        assert [each.name for each in tree if each.kind == "TOOL"] == ["calculator"]
        models = [each for each in tree if each.kind == "LLM"]
        assert len(models) == 2
        assert all(each.input_tokens and each.output_tokens and each.depth > 1 for each in models)
        assert all(each.start_ms + each.duration_ms <= tree[0].duration_ms + 1 for each in tree)
        assert not any(each.failed for each in tree)
        assert client.get_spans(job).spans[0].name == "turn"
        with pytest.raises(Refused):
            AgentClient(url, user_id="bob").get_spans(run)
        client.delete_thread(THREAD)
        with pytest.raises(Refused):
            client.get_spans(run)
    assert spans.settled()


def test_threads_are_found_by_what_was_said(storage: Storage) -> None:
    """Words of a question, of an answer or of a title, in any script and case, and no pattern."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        for thread, message in (("a", "My name is Ärzu."), ("b", "What is 6 * 7?"), ("c", "今天天气怎么样?")):
            client.invoke(message, thread_id=thread)
        client.rename_thread("b", "Sums")
        found = {
            words: [thread.thread_id for thread in client.get_threads(words=words).threads]
            for words in ("ÄRZU", "nice to MEET", "calculator", "天气", "sums", "6 * 7", "%", "_")
        }
    assert found == {
        "ÄRZU": ["a"],
        "nice to MEET": ["a"],
        "calculator": ["b"],
        "天气": ["c"],
        "sums": ["b"],
        "6 * 7": ["b"],
        "%": [],
        "_": [],
    }


def test_a_title_is_checked(storage: Storage) -> None:
    """A title has words, and not too many."""
    with storage.service() as url:
        client = AgentClient(url, "chatbot")
        ask(client, "Hello")
        for title in ("  ", "x" * 201):
            with pytest.raises(Refused) as refused:
                client.rename_thread(THREAD, title)
            assert refused.value.status == 422
