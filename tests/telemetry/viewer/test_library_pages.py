"""The pages of prompts, datasets and experiments in a real browser."""

from langfuse import Langfuse
from langfuse.media import LangfuseMedia
from opentelemetry.trace import format_span_id
from playwright.sync_api import Page, expect

from telemetry.viewer.score import Score
from tests.telemetry.viewer.conftest import Recorder, Viewer
from tests.telemetry.viewer.test_trace import PNG


def test_prompts(viewer: Viewer, langfuse: Langfuse, page: Page) -> None:
    """Each prompt has a page with its versions, the newest first, with their labels and messages."""
    langfuse.create_prompt(name="greet/in english", prompt="Hi {{name}}", labels=["production"], tags=["kind"])
    langfuse.create_prompt(name="greet/in english", prompt="<b>Hey</b> {{name}}", config={"temperature": 0})
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "{{question}}"}
    chat = {"name": "ask", "type": "chat", "prompt": [system, user]}
    assert viewer.client.post("/api/public/v2/prompts", json=chat).status_code == 200

    page.goto(viewer.url)
    page.get_by_role("link", name="Prompts").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("link", name="greet/in english").click()
    versions = page.get_by_role("region")
    expect(versions.nth(0)).to_contain_text("Version 2")
    expect(versions.nth(0)).to_contain_text("<b>Hey</b> {{name}}")
    expect(versions.nth(0)).to_contain_text("latest")
    expect(page.get_by_role("region", name="Version 1")).to_contain_text("production")

    page.goto(f"{viewer.url}/project/local/prompts/ask")
    expect(page.get_by_role("article")).to_have_count(2)
    answer = page.goto(f"{viewer.url}/project/local/prompts/unknown")
    assert answer
    assert answer.status == 404


def test_datasets(viewer: Viewer, langfuse: Langfuse, page: Page) -> None:
    """A dataset shows its items, with pictures in them, and the experiments over it; also at the SDK's address."""
    langfuse.create_dataset(name="what is it?", description="Pictures")
    picture = LangfuseMedia(base64_data_uri=f"data:image/png;base64,{PNG}")
    langfuse.create_dataset_item(dataset_name="what is it?", input={"picture": picture}, expected_output="a square")

    page.goto(f"{viewer.url}/project/local/datasets")
    expect(page.locator("tbody tr")).to_contain_text(["Pictures"])
    page.get_by_role("link", name="what is it?").click()
    expect(page.get_by_text("a square")).to_be_visible()
    drawn = page.get_by_role("img")
    assert drawn.evaluate("image => image.decode().then(() => image.naturalWidth)") == 10
    page.goto(f"{viewer.url}/project/local/datasets/{langfuse.get_dataset('what is it?').id}")
    expect(page.get_by_role("heading", name="what is it?")).to_be_visible()


def test_experiments(viewer: Viewer, langfuse: Langfuse, recorder: Recorder, page: Page) -> None:
    """An experiment shows what went into each item, what came out and was expected, its scores and its trace."""
    langfuse.create_dataset(name="capitals")
    dataset = langfuse.get_dataset("capitals").id
    for number, (country, capital) in enumerate({"Italy": "Rome", "Germany": "Bonn"}.items()):
        with recorder.tracer.start_as_current_span("task") as span:
            span.set_attribute("langfuse.observation.input", country)
            span.set_attribute("langfuse.observation.output", capital)
            root = format_span_id(span.get_span_context().span_id)
            about = {"id": "e 1", "name": "first try", "dataset.id": dataset, "item.id": f"i-{number}"}
            about |= {"item.root_observation_id": root, "item.expected_output": '"Berlin"'}
            span.set_attributes({f"langfuse.experiment.{name}": value for name, value in about.items()})
    viewer.send(recorder.spans)
    scores = [
        Score(trace_id=recorder.ids[0][0], name="is_right", value=0),
        Score(dataset_run_id="e 1", name="share", value=0.5),
    ]
    for score in scores:
        viewer.client.post("/api/public/scores", json=score.model_dump(mode="json", by_alias=True))

    page.goto(f"{viewer.url}/project/local/datasets/capitals")
    page.get_by_role("link", name="first try").click()
    expect(page.get_by_text("share: 0.5")).to_be_visible()
    items = page.get_by_role("region", name="Item")
    expect(items).to_have_count(2)
    for word in ("Italy", "Rome", "Berlin", "is_right: 0"):
        expect(items.nth(1)).to_contain_text(word)
    items.nth(1).get_by_role("link").click()
    expect(page.get_by_role("heading", name="span task")).to_be_visible()
    page.goto(f"{viewer.url}/project/local/experiments")
    expect(page.locator("tbody tr")).to_have_count(1)
