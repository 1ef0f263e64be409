"""Who may use the viewer where it has tokens: by a cookie in a browser, by Bearer elsewhere."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from telemetry.viewer.settings import ViewerSettings
from tests.axe import violations
from tests.processes import free_port, run, start
from tests.telemetry.viewer.conftest import Recorder, running
from tests.telemetry.viewer.test_settings import COMMAND, HEALTH

ADA, BOB = "ada-0123456789abcdef", "bob-fedcba9876543210"
LIST = "/project/local/traces"
OBSERVATIONS = "/api/public/v2/observations"


def settings(folder: Path, *tokens: str) -> ViewerSettings:
    return ViewerSettings(db=folder / "v.db", tokens=tuple(map(SecretStr, tokens)))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {ADA}"}, 200),
        ({"authorization": f"bearer {BOB}"}, 200),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {ADA}x"}, 401),
        ({"authorization": f"Basic {ADA}"}, 401),
        ({"cookie": f"viewer_token={ADA}"}, 401),
        ({"cookie": "viewer_token="}, 401),
    ],
)
def test_a_token_opens_pages_and_api(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """Each of the tokens does as Bearer authorization, nothing that only resembles one does; the keys still do."""
    with running(settings(tmp_path, ADA, BOB)) as viewer:
        for path in (LIST, "/", "/project/local/traces/x", "/media/x", OBSERVATIONS):
            answer = httpx.get(viewer.url + path, headers=headers, trust_env=False)
            assert (answer.status_code == 401) == (status == 401), path
            assert viewer.client.get(path).status_code != 401
        assert httpx.get(f"{viewer.url}{HEALTH}", trust_env=False).status_code == 200


def test_a_cookie_does_not_open_the_api(tmp_path: Path) -> None:
    """The cookie of a browser is for pages alone, cannot be read by scripts or sent by other sites, and no token."""
    with running(settings(tmp_path, ADA)) as viewer, httpx.Client(base_url=viewer.url, trust_env=False) as browser:
        answer = browser.post("/token", data={"token": f" {ADA} ", "then": f"{LIST}?text=a"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{LIST}?text=a")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert ADA not in cookie
        assert browser.get(LIST).status_code == 200
        assert browser.get(OBSERVATIONS).status_code == 401
    with running(settings(tmp_path, BOB)) as other:
        assert httpx.get(other.url + LIST, headers={"cookie": cookie.split(";")[0]}, trust_env=False).status_code == 401


@pytest.mark.parametrize("then", ["https://evil.example/", "//evil.example", "/\\evil.example", "", LIST + "\\..\\x"])
def test_a_token_leads_to_a_page_of_the_viewer(tmp_path: Path, then: str) -> None:
    """Whatever address was to come next, it is one of the viewer's own."""
    with running(settings(tmp_path, ADA)) as viewer:
        answer = httpx.post(f"{viewer.url}/token", data={"token": ADA, "then": then}, trust_env=False)
        assert answer.headers["location"].startswith("/project/local/" if LIST in then else "/")
        assert "evil" not in answer.headers["location"]


def test_pages_of_other_sites_cannot_sign_in(tmp_path: Path) -> None:
    """A form of another site is refused."""
    with running(settings(tmp_path, ADA)) as viewer:
        headers = {"origin": "https://evil.example"}
        answer = httpx.post(f"{viewer.url}/token", data={"token": ADA}, headers=headers, trust_env=False)
        assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None)


def test_a_reader_enters_a_token(tmp_path: Path, recorder: Recorder, page: Page) -> None:
    """The page that was asked for says what to do, takes a token, and opens; a wrong one is told so."""
    with running(settings(tmp_path, ADA, BOB)) as viewer:
        with recorder.tracer.start_as_current_span("root"):
            pass
        wanted = viewer.page(viewer.send(recorder.spans), find="root")
        answer = page.goto(wanted)
        assert answer
        assert answer.status == 401
        expect(page.get_by_role("heading", name="asks for a token")).to_be_visible()
        expect(page.locator("main")).to_contain_text("VIEWER_TOKENS")
        assert violations(page) == []
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.locator("main")).to_contain_text("not a token of this viewer")
        page.get_by_label("Token").fill(BOB)
        page.get_by_role("button", name="Open").click()
        page.wait_for_url(wanted)
        expect(page.locator("#tree")).to_contain_text("root")
        page.get_by_role("button", name="Good answer").click()
        expect(page.locator(".scores")).to_contain_text("thumbs")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="asks for a token")).to_be_visible()
        expect(page.get_by_role("button", name="Sign out")).to_have_count(0)


def test_a_token_is_in_no_log(tmp_path: Path) -> None:
    """Neither a right token nor a wrong one is in what the process says."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"VIEWER_PORT": str(port), "VIEWER_DB": str(tmp_path / "v.db"), "VIEWER_TOKENS": f"{ADA}, {BOB}"}
    with start(COMMAND, env, url + HEALTH) as process:
        for token, status in ((ADA, 303), (BOB + "x", 401)):
            assert httpx.post(f"{url}/token", data={"token": token}, trust_env=False).status_code == status
        bearer = {"authorization": f"Bearer {BOB}"}
        assert httpx.get(url + LIST, headers=bearer, trust_env=False).status_code == 200
        process.stop()
        assert ADA not in process.log
        assert BOB not in process.log


def test_a_short_token_is_refused() -> None:
    """A token that could be guessed is refused in one sentence, without it."""
    status, said = run("telemetry.viewer", env={"VIEWER_TOKENS": f"{ADA},hunter2"})
    assert status == 1
    assert said.startswith("VIEWER_TOKENS: each token needs 16 characters or more")
    assert "hunter2" not in said
