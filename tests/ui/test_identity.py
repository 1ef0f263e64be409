"""Who is at the page: by a proxy's header or by a login, never by the address; people do not see one another's."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, Page, expect
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value

from app.client import AgentClient
from tests.processes import free_port, start, until
from tests.ui.proxy import naming_proxy
from tests.ui.stack import Stack, answered, links, open_tab, port, say, thread_of, trace_of

HEADER = "X-Remote-User"
COOKIE_SECRET = "a cookie secret of more than thirty-two characters"
SECRETS = """
[auth]
redirect_uri = "{page}/oauth2callback"
cookie_secret = "{secret}"
client_id = "chat"
client_secret = "none"
server_metadata_url = "http://127.0.0.1:9/.well-known/openid-configuration"
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
        say(ada, "My name is Ada.")
        expect(ada.get_by_role("radio")).to_have_count(2)
        expect(ada.locator(".st-key-visitor")).to_have_text("ada")
        expect(links(ada)).to_have_count(0)
        thread = thread_of(ada)

        grace.goto(f"{for_grace}/?thread_id={thread}&user_id=ada")
        expect(grace.get_by_text("Ada")).to_have_count(0)
        assert AgentClient(stack.service, user_id="grace").get_threads().threads == []
        [turn] = AgentClient(stack.service, user_id="ada").get_history(thread).turns
        assert stack.observations(traceId=turn.trace_id or "") == []

        ada.get_by_role("radio", name="Thumbs up").click()
        expect(ada.get_by_text("Thank you: stored")).to_be_visible()
        expect(links(ada)).to_have_count(1)
        assert trace_of(links(ada)) == turn.trace_id
        until(lambda: {"chat turn", "turn", "DemoModel"} <= names(stack, turn.trace_id), 60)
        assert {each.get("userId") for each in stack.observations(traceId=turn.trace_id or "")} <= {"ada", None}
        ada.close()
        grace.close()


def names(stack: Stack, trace_id: str | None) -> set[str]:
    return {each["name"] for each in stack.observations(traceId=trace_id or "")}


def test_a_login_names_the_user(stack: Stack, chromium: Browser, tmp_path: Path) -> None:
    """The page asks for a login, and whoever has one is known by the issuer, its realm among them, and the subject."""
    page = f"http://127.0.0.1:{free_port()}"
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(SECRETS.format(page=page, secret=COOKIE_SECRET))
    argv = ["run", "ui/page.py", "--server.port", port(page), f"--secrets.files={secrets}"]
    env = {"AGENT_URL": stack.service, "DATA_DIR": str(tmp_path), **stack.backend}
    with start([sys.executable, "-m", "streamlit", *argv], env, f"{page}/_stcore/health"):
        stranger = open_tab(chromium)
        stranger.goto(f"{page}/?user_id=ada")
        expect(stranger.get_by_text(re.compile("^Log(ging)? in")).first).to_be_visible()
        expect(stranger.get_by_test_id("stChatInput")).to_have_count(0)
        stranger.close()

        known = logged_in(chromium, page, sub="u-1", name="Ada Lovelace", iss="https://id.test/realm")
        say(known, "My name is Ada.")
        answered(known, 1)
        expect(known.get_by_text("Ada Lovelace")).to_be_visible()
        expect(known.get_by_role("button", name="Log out")).to_be_visible()
        other = logged_in(chromium, page, sub="u-1", name="Grace", iss="https://id.test/other")
        other.goto(known.url)
        expect(other.get_by_text("Grace").first).to_be_visible()
        expect(other.get_by_text("My name is Ada.")).to_have_count(0)
    [thread] = AgentClient(stack.service, user_id="id.test%2Frealm|u-1").get_threads().threads
    assert thread.title == "My name is Ada."
    for each in (known, other):
        each.context.close()


def logged_in(chromium: Browser, page: str, **claims: str) -> Page:
    """A browser that comes back from the provider with these claims."""
    told = json.dumps({"is_logged_in": True, "origin": page, **claims})
    cookie = create_signed_value(COOKIE_SECRET, "_streamlit_user", told).decode()
    context = chromium.new_context()
    context.add_cookies([{"name": "_streamlit_user", "value": cookie, "url": page}])
    context.set_default_timeout(60_000)
    tab = context.new_page()
    tab.goto(page)
    return tab
