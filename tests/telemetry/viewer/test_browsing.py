"""Finding one's way in a real browser: filters in the address, keys, landmarks, a phone's width."""

from typing import Literal

import pytest
from opentelemetry.trace import Status, StatusCode
from playwright.sync_api import Page, expect

from tests.telemetry.viewer.conftest import Recorder, Viewer


@pytest.fixture
def filled(viewer: Viewer, recorder: Recorder) -> Viewer:
    """A viewer with 60 traces of two people, every tenth failed, one scored."""
    for number in range(60):
        attributes = {
            "user.id": "ada" if number % 2 else "bob",
            "session.id": f"talk-{number // 20}",
            "langfuse.trace.name": "research" if number % 3 else "chatbot",
            "input.value": f"Question {number:02}",
            "llm.token_count.total": number,
        }
        span = recorder.tracer.start_span("turn", attributes=attributes, start_time=(number + 1) * 10**9)
        if number % 10 == 0:
            span.set_status(Status(StatusCode.ERROR))
        span.end((number + 2) * 10**9)
    viewer.send(recorder.spans)
    score = {"traceId": recorder.ids[7][0], "name": "stars", "value": 2}
    assert viewer.client.post("/api/public/scores", json=score).status_code == 200
    return viewer


def test_filters_live_in_the_address(filled: Viewer, page: Page, phone: Page) -> None:
    """What is filled in narrows the list, stands in the address, and is there again for whoever opens the link."""
    page.goto(filled.traces())
    page.get_by_text("By session, user, name, score, time").click()
    page.get_by_label("User").fill("bob")
    page.get_by_label("with errors").check()
    page.get_by_label("Session").fill("talk-1")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.get_by_role("region", name="The last 2 of these traces")).to_contain_text("Errors in 2 of 2")

    phone.goto(page.url)
    expect(phone.locator("tbody tr")).to_have_count(2)
    expect(phone.get_by_label("User")).to_have_value("bob")
    expect(phone.get_by_label("with errors")).to_be_checked()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.get_by_label("Session").fill("")
    phone.get_by_role("button", name="Filter").click()
    expect(phone.locator("tbody tr")).to_have_count(6)
    phone.get_by_role("link", name="All traces").click()
    expect(phone.locator("tbody tr")).to_have_count(50)

    page.goto(filled.traces(score="stars", at_most="2"))
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("stars: 2")
    page.goto(filled.traces(text="question 33"))
    expect(page.locator("tbody tr")).to_have_count(1)


def test_pages_of_the_list_keep_the_filter(filled: Viewer, page: Page) -> None:
    """Older and back: every trace that fits is met once, and nothing else."""
    page.goto(filled.traces(name="research"))
    expect(page.locator("tbody tr")).to_have_count(40)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.goto(filled.traces())
    first = page.locator("[data-row]").evaluate_all("rows => rows.map(row => row.href)")
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tbody tr")).to_have_count(10)
    second = page.locator("[data-row]").evaluate_all("rows => rows.map(row => row.href)")
    assert len({*first, *second}) == len(first) + len(second) == 60
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tbody tr")).to_have_count(50)


def test_a_plot_has_a_bar_for_each_trace_and_says_the_same_in_words(filled: Viewer, page: Page) -> None:
    """Latency, first token, tokens and errors of the listed traces are drawn, red where it failed, and told."""
    page.goto(filled.traces(session="talk-0"))
    plots = page.get_by_role("figure")
    expect(plots).to_have_count(4)
    expect(plots.nth(0)).to_contain_text("Latency median 1.00 s, p95 1.00 s, most 1.00 s")
    expect(plots.nth(1)).to_contain_text("First token none")
    expect(plots.nth(2)).to_contain_text("Tokens median 10, most 19, 190 in all")
    expect(plots.nth(3)).to_contain_text("Errors in 2 of 20")
    counts = [plots.nth(number).locator("rect").count() for number in range(4)]
    assert counts == [20, 0, 19, 2]
    assert plots.nth(0).locator("rect.error").count() == 2
    heights = plots.nth(2).locator("rect").evaluate_all("all => all.map(each => Number(each.getAttribute('height')))")
    assert heights == sorted(heights)
    assert heights[-1] == 40


def test_keys_go_through_the_list(filled: Viewer, page: Page) -> None:
    """j and k go through the rows, arrows do once one has the focus, Enter opens it, / is the filter, ? tells."""
    page.goto(filled.traces())
    page.keyboard.press("j")
    rows = page.locator("[data-row]")
    expect(rows.nth(0)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(rows.nth(2)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("k")
    expect(rows.nth(0)).to_be_focused()
    outline = rows.nth(0).evaluate("row => getComputedStyle(row).outlineStyle + getComputedStyle(row).outlineWidth")
    assert outline == "solid2px"

    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("j?k")
    expect(page.locator("#filter")).to_have_value("j?k")
    page.keyboard.press("Escape")
    expect(page.locator("#filter")).not_to_be_focused()

    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.get_by_role("button", name="Keys").click()
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")

    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/traces/*")


def test_keys_go_through_the_tree(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """From the chosen span on, j, k and the arrows walk; Enter shows the span and the walk goes on from there."""
    with recorder.tracer.start_as_current_span("root"):
        for name in ("first", "second", "third"):
            recorder.tracer.start_span(name).end()
    page.goto(viewer.page(viewer.send(recorder.spans)))
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="second")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#detail h2")).to_contain_text("second")
    expect(page.get_by_role("link", name="second")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="third")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="third")).to_be_focused()


def test_landmarks_and_names(filled: Viewer, recorder: Recorder, page: Page) -> None:
    """Each page has one banner, one main, one first heading, named regions, and a name for all that can be used."""
    trace_id = recorder.ids[0][0]
    for address in (filled.traces(), filled.session("talk-0"), filled.page(trace_id), filled.page("0" * 32)):
        page.goto(address)
        for role in ("banner", "main"):
            expect(page.get_by_role(role)).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_role("navigation", name="Where you are")).to_have_count(1)
        unnamed = page.locator("a, button, input:not([type=hidden])").evaluate_all(UNNAMED)
        assert unnamed == []
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.goto(filled.traces())
    expect(page.get_by_role("search")).to_have_count(1)
    page.goto(filled.page(trace_id))
    expect(page.get_by_role("navigation", name="Spans").get_by_role("listitem")).to_have_count(1)
    expect(page.locator("[data-row][aria-current=true]")).to_have_count(1)


UNNAMED = """
all => all.filter(each => !(each.getAttribute('aria-label') || each.textContent.trim()
    || [...(each.labels ?? [])].some(label => label.textContent.trim()))).map(each => each.outerHTML)
"""


def test_a_phone_shows_what_was_chosen(viewer: Viewer, recorder: Recorder, phone: Page) -> None:
    """On a narrow screen a tap on a span brings its detail into view, and a link leads back to its place."""
    with recorder.tracer.start_as_current_span("root"):
        for number in range(40):
            recorder.tracer.start_span(f"a span with a rather long name, number {number:02}").end()
    phone.goto(viewer.page(viewer.send(recorder.spans)))
    name = phone.get_by_text("number 03")
    assert name.evaluate("each => each.scrollWidth <= each.clientWidth")
    name.click()
    expect(phone.locator("#detail h2")).to_contain_text("number 03")
    expect(phone.locator("#detail h2")).to_be_in_viewport()
    phone.get_by_role("link", name="To its place among the spans").click()
    expect(phone.locator("[aria-current=true]")).to_be_in_viewport()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


# The words that stand out less than 4.5 to 1 from what is behind them, which is what WCAG 2 asks for.
PALE = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (box) => {
    const colour = getComputedStyle(box).backgroundColor;
    return (channels(colour)[3] ?? 1) || !box.parentElement ? colour : ground(box.parentElement);
  };
  const light = (colour) => {
    const [red, green, blue] = channels(colour).map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
  };
  const worded = [...document.querySelectorAll("main *")].filter((box) => box.checkVisibility() &&
    [...box.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return worded.filter((box) => {
    const [one, other] = [light(getComputedStyle(box).color), light(ground(box))];
    return Math.max(one, other) / Math.min(one, other) < 4.5;
  }).map((box) => box.className + ": " + box.textContent);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_words_stand_out(viewer: Viewer, recorder: Recorder, page: Page, scheme: Literal["light", "dark"]) -> None:
    """Every kind of span, and what was asked, can be read by weak eyes, in the light and in the dark."""
    about = {"session.id": "talk", "input.value": "Which?", "output.value": "That."}
    with recorder.tracer.start_as_current_span("turn", attributes={**about, "openinference.span.kind": "AGENT"}):
        for kind in ("", "CHAIN", "LLM", "TOOL", "RETRIEVER", "EMBEDDING"):
            recorder.tracer.start_span(f"a {kind}", attributes={**about, "openinference.span.kind": kind}).end()
    trace_id = viewer.send(recorder.spans)
    page.emulate_media(color_scheme=scheme)
    for address in (viewer.traces(), viewer.page(trace_id), viewer.session("talk")):
        page.goto(address)
        assert page.evaluate(PALE) == []
