"""The page's script against the real service: what it keeps, what it links to, what it says when something is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.client import AgentClient
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.processes import ROOT, free_port, until
from tests.service import service


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither a developer's `.env` nor an earlier test's turns are seen."""
    monkeypatch.setenv("PYTHON_DOTENV_DISABLED", "1")
    st.cache_resource.clear()
    with recording(Settings.model_validate({"TRACE_URL": "http://traces.test/{trace_id}"})):
        yield


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with service(tmp_path) as address:
        monkeypatch.setenv("AGENT_URL", address)
        yield address


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=20)
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def ask(test: AppTest, message: str) -> AppTest:
    test.chat_input[0].set_value(message).run()
    until(lambda: not test.run().chat_input[0].disabled)
    return test


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
    """An interrupt is told in the agent's words and the next message answers it."""
    test = ask(page(agent="interrupt"), "Book a table for 4 at 19:30")
    assert "Shall I book" in test.info[0].value

    ask(test, "yes")
    assert not test.info


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


@pytest.mark.usefixtures("url")
def test_a_thread_that_cannot_be() -> None:
    """A mistyped address is answered in words."""
    test = page(thread_id="../../etc/passwd")

    assert len(test.error) == 1
    assert not test.exception
