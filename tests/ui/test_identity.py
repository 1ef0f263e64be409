"""Who is at the page: by a proxy's header or by a login, never by the address; people do not see one another's."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from app.client import AgentClient
from tests.openid_server import OpenIDServer, openid_server
from tests.processes import free_port, start, until
from tests.ui.proxy import naming_proxy
from tests.ui.stack import THANKED, Stack, answered, button, links, open_tab, port, say, thread_of, trace_of

HEADER = "X-Remote-User"
SECRETS = """
[auth]
redirect_uri = "{page}/oauth2callback"
cookie_secret = "a cookie secret of more than thirty-two characters"
"""
PROVIDER = """
[auth.{name}]
client_id = "{server.client_id}"
client_secret = "{server.client_secret}"
server_metadata_url = "{server.metadata_url}"
"""


def test_a_proxy_names_the_user_and_feedback_brings_a_dropped_trace_back(mortal: Stack, chromium: Browser) -> None:
    """Two people at one page see only their own; a trace nobody kept has no link until its user judges it."""
    stack = replace(mortal, settings={"USER_ID_HEADER": HEADER, "TELEMETRY_KEEP_RATE": "0"})
    to = int(port(stack.page))
    with (
        stack.run_service(),
        stack.run_page(),
        naming_proxy(to, HEADER, "ada") as for_ada,
        naming_proxy(to, HEADER, "grace") as for_grace,
    ):
        ada, grace = open_tab(chromium), open_tab(chromium)
        ada.goto(for_ada)
        say(ada, "My name is Augusta.")
        expect(ada.get_by_role("radio")).to_have_count(2)
        expect(ada.locator(".st-key-visitor")).to_have_text("ada")
        expect(links(ada)).to_have_count(0)
        thread = thread_of(ada)

        grace.goto(f"{for_grace}/?thread_id={thread}&user_id=ada")
        expect(grace.get_by_text("Augusta")).to_have_count(0)
        assert AgentClient(stack.service, user_id="grace").get_threads().threads == []
        [turn] = AgentClient(stack.service, user_id="ada").get_history(thread).turns
        assert stack.observations(traceId=turn.trace_id or "") == []

        ada.get_by_role("radio", name="Thumbs up").click()
        expect(ada.get_by_text(THANKED)).to_be_visible()
        expect(links(ada)).to_have_count(1)
        assert trace_of(links(ada)) == turn.trace_id
        until(lambda: {"chat turn", "turn", "DemoModel"} <= names(stack, turn.trace_id), 60)
        assert {each.get("userId") for each in stack.observations(traceId=turn.trace_id or "")} <= {"ada", None}
        ada.close()
        grace.close()


def names(stack: Stack, trace_id: str | None) -> set[str]:
    return {each["name"] for each in stack.observations(traceId=trace_id or "")}


def test_a_login_names_the_user(stack: Stack, chromium: Browser, tmp_path: Path) -> None:
    """The provider that somebody logs in with says who it is, to this page only; threads are kept apart by issuer."""
    with (
        openid_server("/realms/one", sub="u-1", name="Ada Lovelace") as one,
        openid_server("/realms/two", sub="u-1", name="Grace") as two,
        run_page(stack, tmp_path, one=one, two=two) as page,
    ):
        ada, grace = (open_tab(chromium) for _ in range(2))
        ada.goto(f"{page}/?user_id=grace")
        expect(button(ada, "Log in with One")).to_be_visible()
        expect(ada.get_by_test_id("stChatInput")).to_have_count(0)
        button(ada, "Log in with One").click()
        ada.get_by_role("link", name="Not me").click()
        log_in(ada, "One", "Ada Lovelace")
        expect(ada).to_have_url(re.compile("user_id=grace"))  # it comes back to what was opened
        say(ada, "My name is Augusta.")
        answered(ada, 1)
        link = ada.url

        grace.goto(link)
        log_in(grace, "Two", "Grace")
        expect(grace).to_have_url(link)
        expect(grace.locator(".st-key-visitor")).to_contain_text("Grace")
        expect(grace.get_by_text("My name is Augusta.")).to_have_count(0)

        button(ada, "Log out").click()
        expect(button(ada, "Log in with Two")).to_be_visible()
        expect(ada.get_by_text("My name is Augusta.")).to_have_count(0)
        assert (one.ended, two.ended) == (["u-1"], [])
        log_in(ada, "One", "Ada Lovelace")
        expect(ada.locator(".st-key-chats")).to_contain_text("My name is Augusta.")
        ada.close()
        ada = open_tab(chromium)
        ada.goto(link)
        button(ada, "Log in with One").click()
        ada.get_by_role("link", name="Not me").click()
        log_in(ada, "One", "Ada Lovelace")
        expect(ada.get_by_text("My name is Augusta.").first).to_be_visible()
        expect(ada).to_have_url(link)
        assert not any({"traceparent", "baggage"} & headers.keys() for headers in one.headers + two.headers)
        [thread] = AgentClient(stack.service, user_id=user_of(one)).get_threads().threads
        assert thread.title == "My name is Augusta."
        assert AgentClient(stack.service, user_id=user_of(two)).get_threads().threads == []
        for each in (ada, grace):
            each.close()


@contextmanager
def run_page(stack: Stack, folder: Path, **providers: OpenIDServer) -> Iterator[str]:
    """A page of its own whose users log in with these."""
    page = f"http://127.0.0.1:{free_port()}"
    secrets = folder / "secrets.toml"
    told = [PROVIDER.format(name=name, server=server) for name, server in providers.items()]
    secrets.write_text(SECRETS.format(page=page) + "".join(told))
    argv = ["run", "ui/serve.py", "--server.port", port(page), f"--secrets.files={secrets}"]
    env = {"AGENT_URL": stack.service, "DATA_DIR": str(folder), **stack.backend}
    with start([sys.executable, "-m", "streamlit", *argv], env, f"{page}/_stcore/health"):
        yield page


def log_in(tab: Page, provider: str, name: str) -> None:
    button(tab, f"Log in with {provider}").click()
    tab.get_by_role("link", name=f"I am {name}").click()
    expect(tab.locator(".st-key-visitor")).to_contain_text(name)


def user_of(server: OpenIDServer) -> str:
    return f"{server.url.removeprefix('http://').replace('/', '%2F')}|u-1"
