"""What can be done from the pages: score, delete, add to a dataset, download and import, compare, open in the chat."""

import gzip
import json
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from telemetry.viewer.settings import ViewerSettings
from tests.processes import run
from tests.telemetry.viewer.conftest import Recorder, Viewer, running

TRACE = "/project/local/traces"


def send(viewer: Viewer, recorder: Recorder, answer: str = "Rain.", **attributes: str) -> str:
    """Send a turn with a tool call, and return the id of its trace."""
    said = {"openinference.span.kind": "AGENT", "input.value": "How is Paris?", "output.value": answer}
    with recorder.tracer.start_as_current_span("turn", attributes=said | {"session.id": "talk/1"} | attributes):
        recorder.tracer.start_span("look", attributes={"openinference.span.kind": "TOOL", "input.value": "a"}).end()
    trace_id = viewer.send(recorder.spans)
    recorder.exporter.clear()
    return trace_id


def scores(viewer: Viewer) -> list[tuple[str, float, str]]:
    found = viewer.client.get("/api/public/v3/scores", params={"fields": "details"}).json()["data"]
    return [(each["name"], each["value"], each["comment"]) for each in found]


def test_a_reader_rates_a_trace_without_javascript(viewer: Viewer, recorder: Recorder, chromium: Browser) -> None:
    """A rating is a score of the API; a second one replaces it, and it can be taken back."""
    trace_id = send(viewer, recorder)
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(viewer.page(trace_id))
        page.get_by_label("Comment").fill("It was dry.")
        page.get_by_role("button", name="Bad answer").click()
        expect(page.locator("#head")).to_contain_text("It was dry.")
        assert scores(viewer) == [("thumbs", 0, "It was dry.")]
        page.get_by_role("button", name="Good answer").click()
        expect(page.locator("#head")).not_to_contain_text("It was dry.")
        assert scores(viewer) == [("thumbs", 1, None)]
        page.get_by_role("button", name="Take back").click()
        expect(page.get_by_role("button", name="Take back")).to_have_count(0)
        assert scores(viewer) == []


def test_a_trace_is_deleted_after_a_question(viewer: Viewer, recorder: Recorder, chromium: Browser) -> None:
    """A link alone deletes nothing; after the confirmation nothing of the trace is found any more, nor is it again."""
    trace_id, other = send(viewer, recorder), send(viewer, recorder)
    viewer.client.post(f"{TRACE}/{trace_id}/score", data={"thumbs": "up"})
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(viewer.page(trace_id))
        page.get_by_role("link", name="Delete").click()
        assert viewer.client.get(f"{TRACE}/{trace_id}").status_code == 200
        page.get_by_role("button", name="Delete").click()
        page.wait_for_url("**/traces")
        expect(page.locator("tbody tr")).to_have_count(1)
    assert viewer.client.get(f"{TRACE}/{trace_id}").status_code == 404
    assert viewer.client.post(f"{TRACE}/{trace_id}/delete").status_code == 404
    assert scores(viewer) == []
    assert viewer.client.get(f"{TRACE}/{other}").status_code == 200


def test_a_trace_becomes_an_item_of_a_dataset(viewer: Viewer, recorder: Recorder) -> None:
    """Its input and output are an item that names the trace; adding it again changes that item, whatever the name."""
    trace_id = send(viewer, recorder)
    name = "asked & told/1"
    form = {"dataset": name}
    first, second = (viewer.client.post(f"{TRACE}/{trace_id}/dataset", data=form) for _ in range(2))
    assert first.status_code == second.status_code == 303
    assert viewer.client.get(second.headers["location"]).status_code == 200
    [item] = viewer.client.get("/api/public/dataset-items", params={"datasetName": name}).json()["data"]
    assert (item["input"], item["expectedOutput"], item["sourceTraceId"]) == ("How is Paris?", "Rain.", trace_id)
    assert name.replace("&", "&amp;") in viewer.client.get(f"{TRACE}/{trace_id}/dataset").text


def test_a_download_can_be_imported(viewer: Viewer, recorder: Recorder, tmp_path: Path, chromium: Browser) -> None:
    """The file of a trace, gzip or not, shows the same trace in another viewer; other files are refused."""
    trace_id = send(viewer, recorder)
    file = tmp_path / "trace.json"
    file.write_bytes(viewer.client.get(f"{TRACE}/{trace_id}.json").content)
    text = viewer.client.get(f"{TRACE}/{trace_id}.txt").text
    with running(ViewerSettings(db=tmp_path / "other.db")) as other:
        with chromium.new_context(java_script_enabled=False) as context:
            page = context.new_page()
            page.goto(other.traces())
            page.get_by_role("link", name="Import").click()
            page.get_by_label("File").set_input_files(file)
            page.get_by_role("button", name="Import").click()
            page.wait_for_url(f"**/{trace_id}")
        assert other.client.get(f"{TRACE}/{trace_id}.txt").text == text
        packed = {"file": ("t.json.gz", gzip.compress(file.read_bytes()))}
        assert other.client.post("/project/local/import", files=packed).status_code == 303
        refused = other.client.post("/project/local/import", files={"file": ("t.json", b"{}}")})
        assert (refused.status_code, "OTLP JSON" in refused.text) == (400, True)


def test_files_are_imported_from_the_command_line(viewer: Viewer, recorder: Recorder, tmp_path: Path) -> None:
    """`import` sends files to the running viewer, and says in one sentence why one was not taken."""
    trace_id = send(viewer, recorder)
    file, broken = tmp_path / "trace.json", tmp_path / "broken.json"
    file.write_bytes(viewer.client.get(f"{TRACE}/{trace_id}.json").content)
    broken.write_text("{}}")
    viewer.client.post(f"{TRACE}/{trace_id}/delete")
    address = httpx.URL(viewer.url)
    env = {"VIEWER_PORT": str(address.port), "VIEWER_PUBLIC_KEY": viewer.keys[0], "VIEWER_SECRET_KEY": viewer.keys[1]}
    assert run("telemetry.viewer", "import", str(file), env=env) == (0, "")
    assert viewer.client.get(f"{TRACE}/{trace_id}").status_code == 200
    for path, reason in ((broken, "was refused"), (tmp_path / "none.json", "No such file")):
        status, printed = run("telemetry.viewer", "import", str(path), env=env)
        assert (status, len(printed.splitlines())) == (1, 1)
        assert reason in printed
    status, printed = run("telemetry.viewer", "--help", env={})
    assert status == 0
    assert all(word in printed for word in ("import", "VIEWER_MAX_BYTES", "VIEWER_MAX_AGE_DAYS", "VIEWER_CHAT_URL"))


@pytest.mark.parametrize("action", ["score", "delete", "dataset"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_of_another_site_can_do_nothing(
    viewer: Viewer, recorder: Recorder, action: str, headers: dict[str, str]
) -> None:
    """A form that another site's page sends is refused, and nothing has changed."""
    trace_id = send(viewer, recorder)
    form = {"thumbs": "up", "dataset": "d"}
    assert viewer.client.post(f"{TRACE}/{trace_id}/{action}", data=form, headers=headers).status_code == 403
    file = {"file": ("t.json", b"{}")}
    assert viewer.client.post("/project/local/import", files=file, headers=headers).status_code == 403
    assert viewer.client.get(f"{TRACE}/{trace_id}").status_code == 200
    assert scores(viewer) == []


def test_nonsense_is_refused_with_a_sentence(viewer: Viewer, recorder: Recorder) -> None:
    """An unknown trace is a 404 and a wrong form a 400, in JSON or as a page."""
    trace_id = send(viewer, recorder)
    for path in ("score", "delete", "dataset"):
        form = {"thumbs": "up", "dataset": "d"}
        assert viewer.client.post(f"{TRACE}/{'0' * 32}/{path}", data=form).status_code == 404
    assert viewer.client.get("/project/local/compare", params={"left": "x"}).status_code == 404
    assert viewer.client.post(f"{TRACE}/{trace_id}/score", data={"thumbs": "sideways"}).status_code == 400
    assert viewer.client.post(f"{TRACE}/{trace_id}/dataset", data={}).status_code == 400
    assert viewer.client.post("/project/local/import", data={"file": "no file"}).status_code == 400


def test_two_traces_are_compared(viewer: Viewer, recorder: Recorder) -> None:
    """What differs is marked: figures, words, and spans that only one has; the same words are not."""
    first = send(viewer, recorder, "Rain.", **{"turn.status": "completed"})
    with recorder.tracer.start_as_current_span(
        "turn",
        attributes={
            "openinference.span.kind": "AGENT",
            "input.value": "How is Paris?",
            "output.value": "Sun.",
            "turn.status": "failed",
        },
    ):
        for name in ("look", "listen"):
            kind = {"openinference.span.kind": "TOOL", "input.value": "a"}
            recorder.tracer.start_span(name, attributes=kind).end()
    second = viewer.send(recorder.spans)
    offered = viewer.client.get("/project/local/compare", params={"left": first}).text
    assert f"right={second}" in offered
    page = viewer.client.get("/project/local/compare", params={"left": first, "right": second}).text
    assert '<tr class="differs"><th scope="row">Status</th><td>completed</td><td>failed</td>' in page
    assert '<tr><th scope="row">Agent</th>' in page
    assert "<del>Rain.</del>" in page
    assert "<ins>Sun.</ins>" in page
    assert page.count("right only") == 1
    assert "left only" not in page
    assert "input differs" not in page


def test_a_session_opens_in_the_chat(tmp_path: Path, recorder: Recorder, viewer: Viewer) -> None:
    """With the chat's address set, trace and session lead to it, whatever the id; without it, nothing does."""
    assert "Open in chat" not in viewer.client.get(f"{TRACE}/{send(viewer, recorder)}").text
    settings = ViewerSettings(db=tmp_path / "chat.db", chat_url="http://chat.example/?thread_id={session_id}")
    with running(settings) as other:
        link = 'href="http://chat.example/?thread_id=talk%2F1"'
        assert link in other.client.get(f"{TRACE}/{send(other, recorder)}").text
        assert link in other.client.get("/project/local/session", params={"id": "talk/1"}).text
    with pytest.raises(ValueError, match="chat_url"):
        ViewerSettings(chat_url="javascript:alert({session_id})")


def test_forms_need_the_keys_where_pages_do(tmp_path: Path, recorder: Recorder) -> None:
    """A viewer that others can reach asks for the keys before it does anything."""
    settings = ViewerSettings.model_validate(
        {"db": tmp_path / "v.db", "host": "0.0.0.0", "public_key": "p", "secret_key": "s"}
    )
    with running(settings) as viewer:
        trace_id = send(viewer, recorder)
        for path in ("score", "delete", "dataset"):
            response = httpx.post(f"{viewer.url}{TRACE}/{trace_id}/{path}", data={"thumbs": "up"}, trust_env=False)
            assert response.status_code == 401
        assert json.loads(viewer.client.get("/api/public/v3/scores").text)["data"] == []
