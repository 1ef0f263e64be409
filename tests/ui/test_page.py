"""The page's script against the real service: what it keeps, what it links to, what it says when something is wrong."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.client import AgentClient
from telemetry.settings import Settings
from telemetry.testing import Recorded, recording
from tests.processes import ROOT, free_port, until
from tests.service import service


@pytest.fixture(autouse=True)
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Neither a developer's `.env` nor an earlier test's turns are seen."""
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "1")
    st.cache_resource.clear()
    with recording(Settings.model_validate({"TRACE_URL": "http://traces.test/{trace_id}"})) as recorded:
        yield recorded


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with service(tmp_path) as address:
        monkeypatch.setenv("AGENT_URL", address)
        yield address


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60)
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def ask(test: AppTest, message: str) -> AppTest:
    test.chat_input[0].set_value(message).run()
    until(lambda: is_idle(test.run()))
    return test


def is_idle(test: AppTest) -> bool:
    """Whether nothing is being answered, that could be stopped."""
    return all(button.key != "stop" for button in test.button)


def links(test: AppTest) -> list[str]:
    return [link.proto.url for link in test.get("link_button")]


def test_an_answer_leaves_its_ids_and_its_link(url: str) -> None:
    """The state holds the thread, each answer's run and trace and the latest trace; the link goes to that trace."""
    test = ask(ask(page(), "What is 6 * 7?"), "My name is Ada.")

    thread_id = test.session_state.thread_id
    first, second = test.session_state.answers
    history = AgentClient(url, "chatbot").get_history(thread_id)
    assert {one.run_id for one in history.messages} == {first["run_id"], second["run_id"]}
    assert test.session_state.trace_id == second["trace_id"] != first["trace_id"]
    assert links(test) == [f"http://traces.test/{one['trace_id']}" for one in (first, second)]
    assert test.query_params["thread_id"] == thread_id

    again = page(thread_id=thread_id)
    assert again.session_state.thread_id == thread_id
    assert again.session_state.answers == [first, second]
    assert again.session_state.trace_id == second["trace_id"]


@pytest.mark.usefixtures("url")
def test_a_tool_shows_its_input_and_output() -> None:
    """What a tool was given and what it gave are there to be unfolded."""
    test = ask(page(), "What is 6 * 7?")

    assert [status.label for status in test.status] == ["Used **calculator**"]
    assert [code.value for code in test.status[0].code] == ['{"expression": "6 * 7"}', "42"]


@pytest.mark.usefixtures("url")
def test_a_new_chat_begins_empty() -> None:
    """A new chat has its own thread; the old one is found again by its address, in another session and process."""
    test = ask(page(), "My name is Ada.")
    old, link = test.session_state.thread_id, links(test)

    test.sidebar.button[0].click().run()
    assert test.session_state.thread_id != old
    assert links(test) == []

    st.cache_resource.clear()
    assert links(page(thread_id=old)) == link


@pytest.mark.usefixtures("url")
def test_an_agent_that_waits_shows_its_question() -> None:
    """An interrupt is told in the agent's words, after a restart too, and a click answers it."""
    question = "Shall I book a table for 4 at 19:30?"
    test = ask(page(agent="interrupt"), "Book a table for 4 at 19:30")
    assert [each.value for each in test.markdown if "Shall I" in each.value] == [question]

    st.cache_resource.clear()
    again = page(thread_id=test.session_state.thread_id)
    assert again.session_state.agent == "interrupt"
    assert [each.value for each in again.markdown if "Shall I" in each.value] == [question]
    assert again.chat_input[0].placeholder == "Your answer"
    next(button for button in again.button if button.label == "Approve").click().run()
    until(lambda: is_idle(again.run()))
    assert not any(button.label == "Approve" for button in again.button)
    assert any("Shall I book" in each.value for each in again.markdown)


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("message", ["<b>bold</b> * $x$ :red[y]", "a\u2028b\U0001f600"])
def test_a_question_is_shown_as_it_was_written(message: str) -> None:
    """Nothing that a person writes is taken for markup."""
    test = ask(page(), message)
    assert [text.value for text in test.text] == [message]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the service the page says which address is silent and how to start it."""
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AGENT_URL", address)
    test = page()

    assert [error.value for error in test.error] == [
        f"No agent service answers at {address}. Start it with `python -m app`, or set `AGENT_URL` to where it runs."
    ]
    assert not test.exception


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("AGENT_URL", "nonsense", "AGENT_URL"),
        ("USER_ID_HEADER", "X-Remote-User", "no X-Remote-User header: open this page through its proxy."),
    ],
)
def test_wrong_settings(monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str) -> None:
    """A setting that cannot be served is told in one sentence, not in a traceback."""
    monkeypatch.setenv(name, value)
    test = page()

    assert sentence in test.error[0].value
    assert not test.exception


def test_what_the_sdk_fails_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that the SDK cannot be imported with is one sentence on the page, too."""
    monkeypatch.setenv("OTEL_PROPAGATORS", "b3")
    code = (
        "from streamlit.testing.v1 import AppTest; test = AppTest.from_file('ui/page.py', default_timeout=30).run();"
        "print([error.value for error in test.error], len(test.exception))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "names something that is not installed: correct it, or remove it." in done.stdout
    assert done.stdout.endswith("] 0\n")


@pytest.mark.usefixtures("url")
def test_a_thread_that_cannot_be() -> None:
    """A mistyped address is answered in words."""
    test = page(thread_id="../../etc/passwd")

    assert len(test.error) == 1
    assert not test.exception


@pytest.mark.usefixtures("url")
def test_thirty_reruns_are_one_load(spans: Recorded) -> None:
    """However often the script runs, a load and a stop are one event each, with the thread; looking is none."""
    test = page()
    test.chat_input[0].set_value("Tell me a long story").run()
    for _ in range(15):
        test.run()
    if stop := [button for button in test.button if button.key == "stop"]:
        stop[0].click()
    until(lambda: is_idle(test.run()))
    for _ in range(14):
        test.run()

    until(lambda: {"page_load"} <= {span.name for span in spans.settled()})
    counts = Counter(span.name for span in spans.settled())
    assert counts["page_load"] == 1
    assert counts["stop"] == len(stop)
    assert not [name for name in counts if "/threads" in name or name == "GET"]
    loads = [span.attributes or {} for span in spans.settled() if span.name == "page_load"]
    assert [load["langfuse.trace.metadata.thread"] for load in loads] == [test.session_state.thread_id]


def test_the_client_is_told_what_was_chosen(url: str) -> None:
    """Agent, model, thread and background reach the service as they stand on the page."""
    test = page(agent="bg-task")
    test.toggle[0].set_value(True).run()
    ask(test, "work for 0 seconds")

    client, thread_id = AgentClient(url), test.session_state.thread_id
    [run] = client.get_runs().runs
    assert (run.thread_id, run.agent, run.status) == (thread_id, "bg-task", "completed")
    assert test.session_state.answers == [{"run_id": run.run_id, "trace_id": run.trace_id}]


def test_a_message_goes_with_the_choices_that_came_before_it(url: str) -> None:
    """Whoever is quicker than the page's drawing is answered by the agent, and in the way, just chosen."""
    test = page()
    test.selectbox(key="agent").set_value("bg-task")
    test.toggle[0].set_value(True)
    ask(test, "work for 0 seconds")

    [run] = AgentClient(url).get_runs().runs
    assert (run.thread_id, run.agent) == (test.session_state.thread_id, "bg-task")


def test_a_retry_goes_with_the_choices_that_came_before_it(url: str) -> None:
    """Whoever chooses another way and asks again at once is answered in that way."""
    test = ask(page(), "/fail")
    test.toggle[0].set_value(True)
    test.button(key="retry").click().run()
    until(lambda: is_idle(test.run()))

    [run] = AgentClient(url).get_runs().runs
    assert (run.thread_id, run.message) == (test.session_state.thread_id, "/fail")


def test_thumbs_are_feedback(url: str) -> None:
    """A vote goes to the run it stands at, is acknowledged, comes back in another session and can be taken back."""
    test = ask(page(), "My name is Ada.")
    thread_id = test.session_state.thread_id
    test.feedback[0].set_value(0).run()
    assert any("Thank you" in caption.value for caption in test.caption)
    [turn] = AgentClient(url, "chatbot").get_history(thread_id).turns
    assert [(vote.key, vote.score) for vote in turn.votes] == [("thumbs", False)]

    again = page(thread_id=thread_id)
    assert again.feedback[0].value == 0
    again.feedback[0].set_value(None).run()
    [turn] = AgentClient(url, "chatbot").get_history(thread_id).turns
    assert turn.votes == []


def test_links_are_named_after_their_backend(url: str) -> None:
    """Where Langfuse shows the traces the link says so."""
    langfuse = {"LANGFUSE_HOST": "http://127.0.0.1:9", "LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}
    with recording(Settings.model_validate({**langfuse, "TRACE_URL": "http://langfuse.test/traces/{trace_id}"})):
        test = ask(page(), "My name is Ada.")
        assert AgentClient(url).info().backend == "Langfuse"
    assert [link.proto.label for link in test.get("link_button")] == ["View in Langfuse"]


@pytest.mark.usefixtures("url")
def test_a_turn_that_was_not_sampled_has_no_link() -> None:
    """There is nothing to be seen of it."""
    with recording(
        Settings.model_validate({"TRACE_URL": "http://traces.test/{trace_id}", "LANGFUSE_SAMPLING_RATE": 0})
    ):
        test = ask(page(), "My name is Ada.")
        assert links(test) == links(page(thread_id=test.session_state.thread_id)) == []


@pytest.mark.usefixtures("url")
def test_who_has_to_log_in_sees_nothing_else() -> None:
    """With a provider configured there is a way in, and no chat."""
    test = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60)
    test.user = {"is_logged_in": False}
    test.secrets["auth"] = {"redirect_uri": "http://127.0.0.1/oauth2callback", "cookie_secret": "x", "client_id": "c"}
    test.run()
    assert not test.chat_input
    assert not test.exception
    assert [button.label for button in test.button] == ["Log in"]


def test_who_logged_in_is_known_by_issuer_and_subject(url: str) -> None:
    """The same subject of two issuers, or of two realms of one, is two people, whatever the address says."""
    for issuer in ("https://id.test/realm", "https://id.test/other/", "https://elsewhere.test"):
        test = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60)
        test.user = {"is_logged_in": True, "iss": issuer, "sub": "a/1|@b", "name": "Ada"}
        test.query_params["user_id"] = "grace"
        ask(test.run(), f"I come from {issuer}")
    for realm in ("id.test/realm", "id.test/other", "elsewhere.test"):
        user = f"{realm.replace('/', '%2F')}|a%2F1|@b"
        [thread] = AgentClient(url, user_id=user).get_threads().threads
        assert realm in thread.title
    assert AgentClient(url, user_id="grace").get_threads().threads == []
