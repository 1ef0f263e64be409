"""A session's page in a real browser: its turns as a conversation, and how they hang together."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
from opentelemetry.trace import Link, Span, Status, StatusCode, format_trace_id
from playwright.sync_api import Page, expect

from tests.telemetry.viewer.conftest import Recorder, Viewer
from tests.telemetry.viewer.test_summary import HOSTILE

METADATA = "langfuse.trace.metadata."


@contextmanager
def turn(recorder: Recorder, links: Sequence[Link] = (), /, **said: str) -> Iterator[Span]:
    """One trace as a turn of our own makes it, a root and an agent, around what happens inside."""
    named = {name.replace("__", "."): value for name, value in said.items()}
    attributes = {"session.id": "trip", "openinference.span.kind": "AGENT", **named}
    with (
        recorder.tracer.start_as_current_span("chat turn", attributes={"session.id": "trip"}),
        recorder.tracer.start_as_current_span("turn", attributes=attributes, links=links) as agent,
    ):
        yield agent


def id_of(span: Span) -> str:
    return format_trace_id(span.get_span_context().trace_id)


def test_a_question_to_a_person_reads_as_one(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """A turn that waits shows what it asks and the options, not the JSON that it asked with."""
    for asked in ({"question": "Shall I book?", "options": ["yes", "no"]}, {"question": "How many?"}, {"amount": 5}):
        with turn(recorder, output__value=json.dumps(asked), turn__status="waiting") as waiting:
            waiting.set_attribute("langfuse.observation.status_message", "waits for an answer")
    viewer.send(recorder.spans)

    page.goto(viewer.session("trip"))
    answers = page.get_by_role("region", name="Conversation").locator(".assistant .content")
    expect(answers).to_have_text(["Shall I book? (yes, no)", "How many?", '{"amount": 5}'])
    page.get_by_role("link", name="trace", exact=True).first.click()
    page.locator(".row").filter(has_text=re.compile(r"(?<!chat )turn")).last.click()
    expect(page.locator(".failure.calm")).to_have_text("waits for an answer")


def test_a_session_reads_as_a_conversation(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """Each turn shows what was asked and answered, its tools, status, figures and scores, and leads to its trace."""
    tool = {"openinference.span.kind": "TOOL"}
    asked = {"input__value": "How is Paris?", "output__value": "Rainy.", "turn__status": "completed"}
    with turn(recorder, langfuse__trace__name="weather", **asked) as first:
        for name in ("forecast", "forecast", "map"):
            with recorder.tracer.start_as_current_span(name, attributes=tool) as used:
                used.set_status(Status(StatusCode.ERROR if name == "map" else StatusCode.OK))
        model = {"llm.model_name": "m", "llm.token_count.total": 23}
        recorder.tracer.start_span("model", attributes=model).end()
    with turn(recorder, input__value="And Rome?", turn__status="failed") as second:
        second.set_status(Status(StatusCode.ERROR, "Timeout: no answer"))
    with recorder.tracer.start_as_current_span("POST /feedback", attributes={"session.id": "trip"}):
        pass
    viewer.send(recorder.spans)
    scores = [
        {"traceId": id_of(first), "name": "stars", "value": 5, "comment": "Thanks"},
        {"sessionId": "trip", "name": "resolved", "value": 1, "dataType": "BOOLEAN"},
    ]
    assert viewer.client.post("/api/public/scores", json=scores).status_code == 202

    page.goto(viewer.session("trip"))
    turns = page.get_by_role("region", name="Conversation").get_by_role("article")
    expect(turns).to_have_count(2)
    for words in (
        "How is Paris?",
        "Rainy.",
        "forecast \N{MULTIPLICATION SIGN}2",
        "map, 1 failed",
        "completed",
        "23 tokens",
        "stars: 5",
    ):
        expect(turns.nth(0)).to_contain_text(words)
    expect(turns.nth(0).locator("footer")).to_contain_text("Thanks")
    for words in ("And Rome?", "Timeout: no answer", "failed"):
        expect(turns.nth(1)).to_contain_text(words)
    expect(page.locator(".beside")).to_contain_text("POST /feedback")
    expect(page.get_by_role("region", name="The session")).to_contain_text("resolved: true")
    expect(page.get_by_role("region", name="The turns on this page")).to_contain_text("Errors in 2 of 2")

    turns.nth(0).get_by_role("link", name="trace").click()
    assert page.url == viewer.page(id_of(first))
    page.get_by_role("navigation", name="Where you are").get_by_role("link", name="trip").click()
    assert page.url == viewer.session("trip")
    page.get_by_role("region", name="The session").get_by_role("link", name="3").click()
    assert page.url == viewer.traces(all="1", session="trip")
    expect(page.locator("tbody tr")).to_have_count(3)


def test_attempts_and_resumes_are_linked(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """An attempt names the one before it, an answer the question that it answers; both ways are links."""
    with turn(recorder, input__value="Book", turn__status="waiting", **{f"{METADATA}run": "r1"}) as question:
        pass
    told = {f"{METADATA}run": "r2", f"{METADATA}resumes": "r1", f"{METADATA}resumes_trace": id_of(question)}
    with turn(recorder, [Link(question.get_span_context())], turn__status="lost", turn__attempt="1", **told) as lost:
        pass
    told = {f"{METADATA}run": "r2", f"{METADATA}resumes": "r2", f"{METADATA}resumes_trace": id_of(lost)}
    with turn(recorder, output__value="Booked.", turn__status="completed", turn__attempt="2", **told) as last:
        pass
    viewer.send(recorder.spans)

    page.goto(viewer.session("trip"))
    turns = page.get_by_role("article")
    expect(turns.nth(0)).to_contain_text("waiting")
    expect(turns.nth(1)).to_contain_text(f"attempt 1 answers {id_of(question)[:8]}")
    expect(turns.nth(1)).to_contain_text("lost")
    expect(turns.nth(2)).to_contain_text(f"attempt 2 another attempt after {id_of(lost)[:8]}")
    turns.nth(1).get_by_role("link", name="below").click()
    assert page.url.endswith(f"#{id_of(last)}")
    turns.nth(1).get_by_role("link", name=id_of(question)[:8]).click()
    assert page.url == viewer.page(id_of(question))


def test_turns_of_others_are_told_by_their_models(viewer: Viewer, recorder: Recorder) -> None:
    """Without an agent's own input and output, the first model call's question and the last one's answer stand."""
    with recorder.tracer.start_as_current_span("chain", attributes={"session.id": "theirs"}):
        for asked, answered in (("How is Paris?", ""), ("How is Paris? It rains there.", "Rainy.")):
            messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": asked}]
            attributes = {
                "openinference.span.kind": "LLM",
                "langfuse.observation.input": json.dumps(messages),
                "langfuse.observation.output": json.dumps({"role": "assistant", "content": answered}),
            }
            recorder.tracer.start_span("model", attributes=attributes).end()
    viewer.send(recorder.spans)
    html = viewer.client.get(viewer.session("theirs")).text
    assert re.findall('<p class="content">(.*?)</p>', html) == ["How is Paris?", "Rainy."]


def test_a_very_long_answer_is_cut(viewer: Viewer, recorder: Recorder) -> None:
    """A session shows the beginning of what is too long for a page of many turns."""
    attributes = {"session.id": "long", "input.value": "Tell me all", "output.value": "y" * 500_000}
    recorder.tracer.start_span("turn", attributes=attributes).end()
    viewer.send(recorder.spans)
    assert 10_000 < len(viewer.client.get(viewer.session("long")).text) < 30_000


def test_a_long_session_has_pages(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """The latest turns stand first, in the order of their time; earlier ones are a link away, none lost."""
    for number in range(45):
        attributes = {"session.id": "long", "input.value": f"Question {number:02}"}
        recorder.tracer.start_span("turn", attributes=attributes, start_time=number + 1).end(number + 2)
    viewer.send(recorder.spans)
    page.goto(viewer.session("long"))
    seen = page.locator(".user .content").all_inner_texts()
    for _ in range(2):
        page.get_by_role("link", name="Earlier").click()
        seen = page.locator(".user .content").all_inner_texts() + seen
    assert seen == [f"Question {number:02}" for number in range(45)]
    expect(page.get_by_role("link", name="Earlier")).to_have_count(0)
    page.get_by_role("link", name="Latest").click()
    expect(page.locator(".user .content").last).to_have_text("Question 44")


def test_hostile_ids_lead_where_they_say(viewer: Viewer, recorder: Recorder, page: Page) -> None:
    """The links to a session and to a user's traces lead to theirs and no other, whatever characters the ids have."""
    for value in HOSTILE:
        attributes = {"session.id": value, "user.id": value, "input.value": "mine"}
        recorder.tracer.start_span("turn", attributes=attributes).end()
    viewer.send(recorder.spans)
    for trace_id, _ in recorder.ids:
        page.set_content(viewer.client.get(viewer.page(trace_id)).text)
        links = page.locator("#head dd a:not([href$='.txt'], [download])").evaluate_all(
            "all => all.map(a => a.getAttribute('href'))"
        )
        for address in (*links, f"/project/local/traces/{trace_id}"):
            html = viewer.client.get(address).text
            assert set(re.findall("traces/([0-9a-f]{32})[^>]* data-row", html)) == {trace_id}
        assert len(links) == 2


def test_langfuses_address_of_a_session_leads_here(viewer: Viewer, recorder: Recorder) -> None:
    """A link made for Langfuse finds the session; an unknown one says that it may come, a missing id what is wrong."""
    recorder.tracer.start_span("turn", attributes={"session.id": "a/b c"}).end()
    viewer.send(recorder.spans)
    with httpx.Client(base_url=viewer.url, trust_env=False, follow_redirects=True) as client:
        assert client.get("/project/local/sessions/a%2Fb%20c").status_code == 200
        assert client.get("/project/local/sessions/none").status_code == 404
        assert client.get("/project/local/session").status_code == 400
        for query in ("?before=x", "?at_least=much", "?errors=maybe", f"?text={'x' * 501}"):
            answer = client.get(f"/project/local/traces{query}")
            assert (answer.status_code, list(answer.json())) == (400, ["message"])
        assert client.get("/project/local/session?id=x&before=x").status_code == 400
