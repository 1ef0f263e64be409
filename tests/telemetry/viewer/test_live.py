"""Pages of what still runs, in a real browser: they follow by themselves, and stop when there is no more to come."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.trace import Span
from playwright.sync_api import Browser, Page, Request, expect

from tests.processes import until
from tests.telemetry.viewer.conftest import Recorder, Viewer

SESSION = {"session.id": "trip"}


@contextmanager
def running(viewer: Viewer, recorder: Recorder) -> Iterator[tuple[str, Span]]:
    """A trace whose root is open inside and arrives at the end; `model` has come."""
    with recorder.tracer.start_as_current_span("turn", attributes=SESSION) as root:
        recorder.tracer.start_span("model", attributes=SESSION).end()
        yield viewer.send(recorder.spans), root
    viewer.send(recorder.spans)


def asked(page: Page) -> list[str]:
    """The requests for pages from now on, as they are made."""
    found: list[str] = []

    def note(request: Request) -> None:
        if "/static/" not in request.url:
            found.append(request.url)

    page.on("request", note)
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_a_trace_follows_until_it_is_complete(viewer: Viewer, recorder: Recorder, page: Page, width: int) -> None:
    """New spans and the end appear without a reload, what was opened stays open, and then nothing is asked for."""
    page.set_viewport_size({"width": width, "height": 800})
    with running(viewer, recorder) as (trace_id, root):
        page.goto(viewer.page(trace_id))
        expect(page.locator("h1")).to_contain_text("running")
        expect(page.locator(".row.awaited")).to_contain_text("not ended yet")
        page.evaluate("window.same = true")
        page.get_by_text("Resource").click()
        recorder.tracer.start_span("tool").end()
        viewer.send(recorder.spans)
        expect(page.get_by_role("link", name="tool")).to_be_visible()
        expect(page.locator("details", has_text="Resource")).to_have_attribute("open", "")
        page.get_by_role("link", name="tool").focus()
        root.set_attribute("output.value", "done")
    expect(page.get_by_role("status")).to_have_text("completed")
    expect(page.locator("#detail")).to_contain_text("done")
    expect(page.locator(".row.awaited")).to_have_count(0)
    expect(page.get_by_role("link", name="tool")).to_be_focused()
    assert page.evaluate("window.same")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("main").get_attribute("data-live") == "0"
    requests = asked(page)
    page.wait_for_timeout(1_500)
    assert requests == []


def test_a_session_follows_its_turns(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """A running turn says what came last of it; its answer, and the turn after it, appear by themselves."""
    with running(viewer, recorder) as (_, root):
        page.goto(viewer.session("trip"))
        expect(page.get_by_role("article")).to_contain_text("still going, latest")
        expect(page.get_by_role("article")).to_contain_text("model")
        root.set_attributes({"input.value": "How is Paris?", "output.value": "Rainy."})
    expect(page.locator(".message.assistant")).to_contain_text("Rainy.")
    expect(page.get_by_text("still going")).to_have_count(0)
    recorder.tracer.start_span("turn", attributes={**SESSION, "input.value": "And Rome?"}).end()
    viewer.send(recorder.spans)
    expect(page.get_by_text("And Rome?")).to_be_visible()


def test_the_list_follows_what_comes(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """A trace appears in an empty list, its state changes, and what is typed into the filter meanwhile stays."""
    page.goto(viewer.traces(all="1"))
    expect(page.get_by_text("No traces yet")).to_be_visible()
    with running(viewer, recorder):
        expect(page.get_by_role("row", name="running")).to_be_visible()
        page.locator("#filter").fill("half a wo")
        page.locator("#filter").focus()
    expect(page.locator(".badge.running")).to_have_count(0)
    expect(page.locator("tbody")).to_contain_text("turn")
    expect(page.locator("#filter")).to_have_value("half a wo")
    expect(page.locator("#filter")).to_be_focused()


def test_an_unknown_trace_appears(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """The page of a trace that has not come turns into the trace when it does."""
    recorder.tracer.start_span("late").end()
    page.goto(viewer.page(recorder.ids[0][0]))
    viewer.send(recorder.spans)
    expect(page.locator("h1")).to_contain_text("late")


def test_a_hidden_tab_asks_for_nothing(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """Out of sight the page rests, back in sight it catches up."""
    # Headless Chromium never hides a tab; what the page is told is what a browser tells it.
    page.add_init_script("Object.defineProperty(document, 'hidden', {get: () => window.away === true})")
    turn_away = "away => { window.away = away; document.dispatchEvent(new Event('visibilitychange')) }"
    with running(viewer, recorder) as (trace_id, _):
        page.goto(viewer.page(trace_id))
        requests = asked(page)
        until(lambda: page.wait_for_timeout(50) or requests, 60)
        page.evaluate(turn_away, True)
        page.wait_for_timeout(500)  # one that was under way
        requests.clear()
        page.wait_for_timeout(2_000)
        assert requests == []
    page.evaluate(turn_away, False)
    expect(page.locator("h1")).to_contain_text("completed")


def test_a_page_that_has_not_changed_is_not_sent_again(viewer: Viewer, recorder: Recorder) -> None:
    """Whoever has the page gets 304, and the new page once something has come, a score as well."""
    recorder.tracer.start_span("turn", attributes=SESSION).end()
    trace_id = viewer.send(recorder.spans)
    for address in (viewer.page(trace_id), viewer.session("trip"), viewer.traces(all="1")):
        first = viewer.client.get(address)
        has = {"if-none-match": first.headers["etag"]}
        again = viewer.client.get(address, headers=has)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"]
        score = {"traceId": trace_id, "name": address, "value": 1}
        assert viewer.client.post("/api/public/scores", json=score).status_code == 200
        assert viewer.client.get(address, headers=has).status_code == 200


def test_pages_read_without_scripts(viewer: Viewer, recorder: Recorder, chromium: Browser) -> None:
    """With JavaScript off the same is there: the tree, the conversation, the filter; a running page leads to itself."""
    with (
        chromium.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844}) as context,
        running(viewer, recorder) as (trace_id, _),
    ):
        page = context.new_page()
        page.goto(viewer.page(trace_id))
        page.get_by_role("link", name="Look again").click()
        page.get_by_role("link", name="model").click()
        expect(page.locator("#detail h2")).to_contain_text("model")
        page.goto(viewer.session("trip"))
        expect(page.get_by_text("still going")).to_be_visible()
        page.goto(viewer.traces(all="1"))
        page.get_by_label("with errors").check()
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_text("No such traces")).to_be_visible()
        assert "errors=1" in page.url
