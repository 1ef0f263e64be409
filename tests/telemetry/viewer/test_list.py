"""The lists of traces, sessions and users: what a line says, and how it is found."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import Status, StatusCode
from playwright.sync_api import Browser, Page, expect

from telemetry.export.otlp import Event, Span
from telemetry.viewer.score import Score
from telemetry.viewer.store import Store
from telemetry.viewer.summary import SEVERITIES, SORTS, TraceFilters
from tests.telemetry.viewer.conftest import Recorder, Viewer
from tests.telemetry.viewer.test_store import span

TURN_STATUSES = ["completed", "waiting", "cancelled", "failed", "lost"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "viewer.db", 2**30)) as store:
        yield store


def numbers(store: Store, **filters: str) -> list[int]:
    """The traces that are found, by number."""
    found = store.latest(99, TraceFilters.model_validate({"all": "1", **filters}))
    return [int(trace.trace_id, 16) for trace in found]


def about(trace: int, /, **attributes: Any) -> Span:
    return span(trace, attributes={name.replace("__", "."): value for name, value in attributes.items()})


@pytest.fixture
def turns(viewer: Viewer, recorder: Recorder) -> dict[str, str]:
    """A turn of each status below a root that knows nothing of it, each with a failed tool; trace ids by status."""
    found: dict[str, str] = {}
    common = {"session.id": "trip", "user.id": "ada", "langfuse.trace.name": "weather"}
    for status in TURN_STATUSES:
        said = {"input.value": f"How is {status}?", "turn.status": status}
        if status in ("completed", "waiting"):
            said["output.value"] = f"Answer {status}"
        kind = "openinference.span.kind"
        with (
            recorder.tracer.start_as_current_span("chat turn", attributes=common) as root,
            recorder.tracer.start_as_current_span("turn", attributes={**common, **said, kind: "AGENT"}) as agent,
        ):
            with recorder.tracer.start_as_current_span("forecast", attributes={**common, kind: "TOOL"}) as used:
                used.set_status(Status(StatusCode.ERROR, "upstream is gone"))
            model = {**common, "llm.model_name": "m", "llm.token_count.total": 1_234, "llm.cost.total": 0.0125}
            recorder.tracer.start_span("model", attributes=model).end()
            if status == "failed":
                agent.set_status(Status(StatusCode.ERROR, "Timeout: no answer"))
        found[status] = format(root.get_span_context().trace_id, "032x")
    viewer.send(recorder.spans)
    score = {"traceId": found["completed"], "name": "stars", "value": 5}
    assert viewer.client.post("/api/public/scores", json=score).status_code == 200
    return found


def test_a_line_says_what_happened(viewer: Viewer, turns: dict[str, str], page: Page) -> None:
    """Question, answer or error, status, agent, user, session, figures and scores of a turn stand in its line."""
    page.goto(viewer.traces())
    expect(page.locator("tbody tr")).to_have_count(len(TURN_STATUSES))
    line = page.locator("tbody tr", has_text="How is completed?")
    for shown in (
        "Answer completed",
        "completed",
        "weather",
        "ada",
        "trip",
        "1,234",
        "$0.0125",
        "stars: 5",
        "just now",
    ):
        expect(line).to_contain_text(shown)
    expect(line.locator(".wrong")).to_have_count(0)
    failed = page.locator("tbody tr", has_text="How is failed?")
    expect(failed.locator(".wrong")).to_have_text("Timeout: no answer")
    expect(page.locator("tbody tr", has_text="How is cancelled?").locator(".wrong")).to_have_count(0)
    time_shown = line.locator("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", time_shown.get_attribute("title") or "")


def test_one_status_everywhere(viewer: Viewer, turns: dict[str, str], page: Page) -> None:
    """The list, the session's page and the trace's page say of a turn what it says of itself."""
    for status, trace_id in turns.items():
        page.goto(viewer.traces())
        expect(page.locator("tbody tr", has_text=f"How is {status}?").locator("td[data-label=Status]")).to_have_text(
            status
        )
        page.goto(viewer.session("trip"))
        expect(page.locator(f"[id='{trace_id}'] footer .badge").first).to_have_text(status)
        page.goto(viewer.page(trace_id))
        expect(page.locator("h1 [data-news]")).to_have_text(status)
        page.goto(viewer.traces(status=status))
        expect(page.locator("tbody tr")).to_have_count(1)


@pytest.mark.parametrize(
    ("attributes", "status", "expected"),
    [
        ({}, "UNSET", "completed"),
        ({}, "ERROR", "failed"),
        ({"turn.status": "queued"}, "UNSET", "completed"),
        ({"turn.status": "<b>"}, "ERROR", "failed"),
        ({"turn.status": ["completed"]}, "UNSET", "completed"),
    ],
)
def test_a_trace_that_says_nothing_has_the_status_of_its_spans(
    store: Store, attributes: dict[str, Any], status: str, expected: str
) -> None:
    """Where no turn says how it ended, an error is a failure, and what a turn may not say is not believed."""
    store.add_spans([span(1, attributes=attributes, status=status)])
    assert [trace.state for trace in store.latest(1)] == [expected]


def test_only_turns_are_listed_until_all_are_wanted(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """What is no turn is behind a switch, which a link keeps, and a list without turns says so."""
    recorder.tracer.start_span("page_load").end()
    viewer.send(recorder.spans)
    page.goto(viewer.traces())
    expect(page.get_by_role("heading", name="No turns yet")).to_be_visible()
    page.get_by_role("link", name="Show them").click()
    expect(page.locator("tbody tr")).to_have_count(1)

    recorder.tracer.start_span("turn", attributes={"input.value": "How is Paris?"}).end()
    viewer.send(recorder.spans)
    page.goto(viewer.traces())
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("How is Paris?")
    page.get_by_role("link", name="Every trace").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.locator("#filter").fill("page")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Turns", exact=True).click()
    expect(page.get_by_role("heading", name="No turns fit")).to_be_visible()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("weather", [1]),
        ("eath", [1]),
        ("WEATHER paris", [1]),
        ("天气", [2]),
        ("天气怎", [2]),
        ("样", [2]),
        ("天 样", [2]),
        ("kö", [3]),
        ("KÖLN", [3]),
        ("погод", [4]),
        ("п", [4]),
        ("42", [5]),
        ("5", []),
        ("000", []),
        ("run-77", [5]),
        ("thread-9", [5]),
        ("bob@", [5]),
        ("calculator", [5]),
        ("demo-model", [5]),
        ("boom", [6]),
        (f"{7:032x}", [7]),
        (f"{7:032x}"[4:], [7]),
        ("100%", [8]),
        ("a_b", [8]),
        ('"quoted"', [8]),
        ("'", [8]),
        ("nothing of it", []),
        ("weather 天气", []),
        ("* OR ^", []),
        ("axb", []),
    ],
)
def test_words_are_found_in_any_script(store: Store, words: str, expected: list[int]) -> None:
    """Part of a word, a name or an id is enough, however short, in any script, and is never read as a command."""
    tool = {"openinference.span.kind": "TOOL"}
    store.add_spans(
        [
            about(1, input__value="How is the weather in Paris?"),
            about(2, input__value="今天天气怎么样"),
            about(3, output__value="Zug nach Köln"),
            about(4, input__value="Какая погода"),
            # An id has any few digits: it is found by six and more.
            about(5, langfuse__trace__metadata__run="run-77", session__id="thread-9", user__id="bob@x.org"),
            span(5, 2, parent_id=f"{1:016x}", name="calculator", attributes=tool),
            span(5, 3, parent_id=f"{1:016x}", attributes={"model": "demo-model", "output.value": "42"}),
            span(6, status="ERROR", message="boom"),
            span(7),
            about(8, input__value='100% of a_b, "quoted", it\'s'),
        ]
    )
    assert numbers(store, text=words) == expected


def test_every_order_is_whole(store: Store) -> None:
    """Whichever column sorts, up or down, the pages together have each trace once, in this order."""
    first = "langfuse.observation.completion_start_time"
    for number in range(1, 24):
        attributes: dict[str, Any] = {
            "input.value": "x",
            "llm.token_count.total": number % 5,
            "user.id": f"user~{number % 3}-",
            "session.id": f"s{number % 4}",
            "langfuse.trace.name": "ab"[number % 2],
        }
        if number % 3:
            attributes["llm.cost.total"] = number % 7 / 8
            attributes[first] = f"1970-01-01T00:00:0{number % 4}Z"
        if number % 4 != 3:
            attributes["turn.status"] = ("waiting", "failed", "lost", "cancelled", "completed")[number % 5]
        status = "ERROR" if number % 6 == 0 else "OK"
        store.add_spans([span(number, start=number, end=number + number % 6, attributes=attributes, status=status)])

    def place(trace: Any, column: str) -> Any:
        value = {"first_token": trace.first_token_ns, "user": trace.user_id, "session": trace.session_id}
        value |= {"name": trace.given_name, "latency": trace.latency, "time": trace.start, "errors": trace.errors}
        value |= {"tokens": trace.tokens, "cost": trace.cost, "status": SEVERITIES.index(trace.state)}
        found = value[column]
        return (-1 if found is None else found, trace.start)

    for column in ("time", *SORTS):
        for sort in (column if column != "time" else "", f"{column}.asc"):
            seen, before = [], ""
            while page := store.latest(5, TraceFilters(sort=sort, before=before)):
                seen += page
                before = page[-1].cursor_in(TraceFilters(sort=sort).order)
            keys = [place(trace, column) for trace in seen]
            assert len({trace.trace_id for trace in seen}) == len(seen) == 23, sort
            assert keys == sorted(keys, reverse=not sort.endswith(".asc")), sort


def test_columns_sort_by_a_click(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """A column's head sorts by it, a second click turns the order round; the address keeps it with the filters."""
    for number, seconds in enumerate((2, 9, 4), 1):
        attributes = {"input.value": f"question {number}"}
        begin = number * 10**9
        recorder.tracer.start_span("turn", attributes=attributes, start_time=begin).end(begin + seconds * 10**9)
    viewer.send(recorder.spans)
    rows = page.locator("[data-row]")
    page.goto(viewer.traces(text="question"))
    assert rows.all_inner_texts() == ["question 3", "question 2", "question 1"]
    page.get_by_role("columnheader").get_by_role("link", name="Latency").click()
    assert rows.all_inner_texts() == ["question 2", "question 3", "question 1"]
    page.get_by_role("columnheader").get_by_role("link", name="Latency").click()
    assert rows.all_inner_texts() == ["question 1", "question 3", "question 2"]
    page.get_by_role("columnheader").get_by_role("link", name="Time").click()
    assert rows.all_inner_texts() == ["question 3", "question 2", "question 1"]
    assert "text=question" in page.url


def test_facets_count_and_narrow(viewer: Viewer, turns: dict[str, str], page: Page) -> None:
    """Each value says how many traces have it; choosing it narrows the list, and its chip takes it back."""
    page.goto(viewer.traces())
    facets = page.get_by_role("complementary", name="Facets")
    expect(facets.get_by_role("listitem").filter(has_text="waiting")).to_have_text(re.compile(r"waiting\s+1"))
    expect(facets.get_by_role("listitem").filter(has_text="weather")).to_have_text(re.compile(r"weather\s+5"))
    facets.get_by_role("link", name="waiting").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "status=waiting" in page.url
    page.get_by_role("link", name="Without status waiting").click()
    expect(page.locator("tbody tr")).to_have_count(5)
    facets.get_by_text("Score").click()
    facets.get_by_role("link", name="stars").click()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_each_facet_finds_its_traces(store: Store) -> None:
    """Model, tool, tag, environment and class of error find the traces that have them, also after a change."""
    tool = {"name": "lookup", "parent_id": f"{1:016x}", "attributes": {"openinference.span.kind": "TOOL"}}
    store.add_spans(
        [
            about(1, model="m1", langfuse__environment="prod"),
            span(1, 2, **tool),
            span(2, attributes={"langfuse.trace.tags": ["a", "b'"]}, resource={"deployment.environment.name": "prod"}),
            span(3, status="ERROR", events=[Event("exception", 3, {"exception.type": "ValueError"})]),
            span(4, status="ERROR", attributes={"exception.type": "KeyError"}),
            span(5, attributes={"exception.type": "KeyError"}),
        ]
    )
    assert numbers(store, model="m1") == numbers(store, tool="lookup") == [1]
    assert numbers(store, tag="b'") == numbers(store, tag="a") == [2]
    assert numbers(store, environment="prod") == [2, 1]
    assert (numbers(store, error="ValueError"), numbers(store, error="KeyError")) == ([3], [4])
    assert numbers(store, model="m1", tag="a") == []
    facets = store.facets(TraceFilters(all="1"))
    assert facets["environment"] == {"default": 4, "prod": 2}
    assert (facets["model"], facets["tool"], facets["tag"]) == ({"m1": 1}, {"lookup": 1}, {"a": 1, "b'": 1})
    store.add_spans([about(1, model="m2")])
    assert (numbers(store, model="m1"), numbers(store, model="m2")) == ([], [1])


def test_a_time_is_a_part_of_the_list(store: Store) -> None:
    """The last hour, day or week, and what lies between two moments, both with a zone and without."""
    hour = 3_600 * 10**9
    now = time.time_ns()
    store.add_spans(span(number, start=now - age * hour) for number, age in enumerate((200, 100, 20, 0), 1))
    assert numbers(store, since="1h") == [4]
    assert numbers(store, since="24h") == [4, 3]
    assert numbers(store, since="7d") == [4, 3, 2]
    day = 86_400 * 10**9
    store.add_spans(span(number, start=number * day + 10**9) for number in (11, 12, 13))
    assert numbers(store, **{"from": "1970-01-12T00:00", "to": "1970-01-14T00:00"}) == [12, 11]
    assert numbers(store, **{"from": "1970-01-13T02:00+02:00", "to": "1970-01-14T00:00Z"}) == [12]
    assert numbers(store, to="0001-01-01T00:00") == []


def test_what_cannot_be_is_said_on_a_page(viewer: Viewer, page: Page) -> None:
    """A browser is told in a sentence on a page what is wrong with an address, with the way back."""
    for query, says in (
        ({"at_least": "abc"}, "at_least: Input should be a valid number"),
        ({"from": "soon"}, "from: Input should be a valid datetime"),
        ({"sort": "x"}, "sort: "),
    ):
        answer = page.goto(viewer.traces(**query))
        assert answer
        assert answer.status == 400
        assert answer.headers["content-type"].startswith("text/html")
        expect(page.get_by_role("heading", level=1)).to_have_text("This cannot be shown")
        expect(page.locator("main")).to_contain_text(says)
    page.get_by_role("link", name="All traces").click()
    expect(page.get_by_text("No traces yet")).to_be_visible()


def test_sessions_and_users_have_lists(viewer: Viewer, turns: dict[str, str], recorder: Recorder, page: Page) -> None:
    """A line has the first question and the last answer, turns, failures and sums, and leads to its page."""
    later = {"session.id": "later", "user.id": "bob", "input.value": "Anything new?", "output.value": "No."}
    recorder.tracer.start_span("turn", attributes=later).end()
    viewer.send(recorder.spans)
    page.goto(viewer.traces())
    page.get_by_role("link", name="Sessions").click()
    assert page.locator("[data-row]").all_inner_texts() == ["later", "trip"]
    line = page.locator("tbody tr", has_text="trip")
    for shown in ("How is completed?", "Answer waiting", "ada", "6,170", "$0.0625"):
        expect(line).to_contain_text(shown)
    expect(line.locator("td[data-label=Failed]")).to_have_text("2")
    page.get_by_role("link", name="trip").click()
    assert page.url == viewer.session("trip")
    page.get_by_role("link", name="Users").click()
    assert page.locator("[data-row]").all_inner_texts() == ["bob", "ada"]
    page.get_by_role("link", name="ada").click()
    expect(page.locator("tbody tr")).to_have_count(5)


def test_long_lists_of_sessions_go_by_pages(store: Store) -> None:
    """Each session is on one page, those in which something happened last first, whatever its name."""
    names = [f"a-{number % 3}-{'~/?%'[number % 4]}{number}" for number in range(23)]
    store.add_spans(about(number + 1, session__id=name, user__id=name) for number, name in enumerate(names))
    for groups in (store.sessions, store.users):
        seen, before = [], ""
        while page := groups(5, before):
            seen += [group.id for group in page]
            before = page[-1].cursor
        assert seen == names[::-1]


def test_an_overview_leads_to_what_is_behind_it(viewer: Viewer, turns: dict[str, str], page: Page) -> None:
    """Turns, failures, models, tools and scores of the last day add up, and each leads to the list of its traces."""
    page.goto(viewer.traces())
    page.get_by_role("link", name="Overview").click()
    totals = page.get_by_role("region", name="Totals")
    expect(totals.locator("div", has_text="Failed").locator("dd")).to_have_text("2 (40.0 %)")
    expect(totals).to_contain_text("$0.0625")
    expect(page.get_by_role("region", name="Models").locator("tbody")).to_contain_text("m")
    expect(page.get_by_role("region", name="Tools").locator("tbody tr")).to_contain_text("forecast")
    expect(page.get_by_role("region", name="Tools").locator("tbody tr")).to_contain_text("100.0 %")
    expect(page.get_by_role("region", name="Scores").locator("tbody tr")).to_contain_text("5.00")
    bars = page.get_by_role("figure").first.locator("a")
    expect(bars.last).to_have_accessible_name(re.compile(r"turns, \d+ failed"))
    bars.last.click()
    page.wait_for_url("**/traces?*")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="forecast").click()
    expect(page.locator("tbody tr")).to_have_count(5)


def test_an_empty_overview_says_so(viewer: Viewer, page: Page) -> None:
    """Without any turn there are no bars, and no error."""
    page.goto(f"{viewer.url}/project/local/overview?since=1h")
    expect(page.get_by_text("No turns in this time")).to_be_visible()
    page.get_by_role("link", name="Any time").first.click()
    expect(page.get_by_role("region", name="Totals").locator("div", has_text="Turns").locator("dd")).to_have_text("0")


def test_lists_read_without_scripts_on_a_phone(viewer: Viewer, turns: dict[str, str], chromium: Browser) -> None:
    """Facets, order, sessions, users and the overview work with JavaScript off, and nothing scrolls sideways."""
    with chromium.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.goto(viewer.traces())
        page.get_by_role("complementary").get_by_role("link", name="waiting").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        for name in ("Sessions", "Users", "Overview"):
            page.get_by_role("link", name=name).click()
            page.wait_for_url(f"**/{name.lower()}", wait_until="load")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_scores_of_many_traces_are_counted_once_each(store: Store) -> None:
    """A facet counts traces, however many scores of a name each has."""
    store.add_spans([span(1), span(2)])
    scores = [Score(trace_id=span(trace).trace_id, name="stars", value=value) for trace in (1, 2) for value in (1, 2)]
    store.add_scores(scores)
    assert store.facets(TraceFilters(all="1"))["score"] == {"stars": 2}
