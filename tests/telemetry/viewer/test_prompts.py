"""Prompts, kept and read by the unchanged Langfuse SDK."""

from typing import Any

import pytest
from langfuse import Langfuse
from langfuse.api import NotFoundError

from tests.telemetry.viewer.conftest import Viewer

PROMPTS = "/api/public/v2/prompts"


def test_a_prompt_comes_back_by_label_and_version(langfuse: Langfuse) -> None:
    """Versions count up, the label moves with the last one that was given it, the newest is `latest`."""
    for text in ("Hello {{name}}", "Hi {{name}}"):
        langfuse.create_prompt(name="greet/in-english", prompt=text, labels=["production"], config={"temperature": 0})
    langfuse.create_prompt(name="greet/in-english", prompt="Hey {{name}}")

    def read(**which: Any) -> tuple[str, int, list[str]]:
        prompt = langfuse.get_prompt("greet/in-english", cache_ttl_seconds=0, **which)
        return prompt.prompt, prompt.version, prompt.labels

    assert read() == ("Hi {{name}}", 2, ["production"])
    assert read(version=1) == ("Hello {{name}}", 1, [])
    assert read(label="latest") == ("Hey {{name}}", 3, ["latest"])
    prompt = langfuse.get_prompt("greet/in-english", cache_ttl_seconds=0)
    assert prompt.compile(name="Ada") == "Hi Ada"
    assert prompt.config == {"temperature": 0}


def test_a_chat_prompt_comes_back_with_its_messages(langfuse: Langfuse) -> None:
    """Messages and placeholders are kept as they are."""
    langfuse.create_prompt(
        name="chat",
        type="chat",
        prompt=[{"role": "system", "content": "Be {{how}}."}, {"type": "placeholder", "name": "history"}],
        labels=["production"],
    )
    prompt = langfuse.get_prompt("chat", type="chat", cache_ttl_seconds=0)
    compiled = prompt.compile(how="brief", history=[{"role": "user", "content": "Hi"}])
    assert compiled == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_labels_and_tags_can_be_changed(viewer: Viewer, langfuse: Langfuse) -> None:
    """A label points at one version; tags belong to all versions, and stay where none are sent."""
    for number, tags in ((1, ["a"]), (2, None), (3, ["b", "c"])):
        langfuse.create_prompt(
            name="p", prompt=f"text {number}", labels=["production"] if number == 1 else [], tags=tags
        )
    langfuse.update_prompt(name="p", version=2, new_labels=["production", "staging"])
    found = {number: langfuse.api.prompts.get("p", version=number) for number in (1, 2, 3)}
    assert [sorted(prompt.labels) for prompt in found.values()] == [[], ["production", "staging"], ["latest"]]
    assert [prompt.tags for prompt in found.values()] == [["b", "c"]] * 3
    refused = viewer.client.patch(f"{PROMPTS}/p/versions/1", json={"newLabels": ["latest"]})
    assert (refused.status_code, refused.json()["message"][:6]) == (400, "latest")


def test_prompts_are_listed_and_forgotten(langfuse: Langfuse) -> None:
    """The list has a line for each name, narrowed by name, label and tag; versions and whole prompts can go."""
    for name in ("a", "b", "c"):
        langfuse.create_prompt(name=name, prompt="text", labels=["production"], tags=[f"tag-{name}"])
    langfuse.create_prompt(name="b", prompt="text 2", config={"k": 1})
    api = langfuse.api.prompts
    assert [(each.name, each.versions) for each in api.list().data] == [("a", [1]), ("b", [1, 2]), ("c", [1])]
    assert [each.name for each in api.list(limit=2, page=2).data] == ["c"]
    assert [each.name for each in api.list(tag="tag-b").data] == ["b"]
    [found] = api.list(name="b", label="latest").data
    assert (found.versions, found.labels, found.last_config) == ([2], ["latest"], {"k": 1})
    api.delete("b", version=2)
    assert api.get("b", label="latest").version == 1
    api.delete("b")
    for version, label in ((1, None), (None, "latest"), (None, None)):
        with pytest.raises(NotFoundError):
            api.get("b", version=version, label=label)
    with pytest.raises(NotFoundError):
        api.delete("b")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "", "prompt": "x"},
        {"name": "n" * 256, "prompt": "x"},
        {"name": "n", "prompt": ["x"]},
        {"name": "n", "prompt": "x", "type": "chat"},
        {"name": "n", "prompt": [{"role": "user", "content": "x"}]},
        {"name": "n", "prompt": "x", "labels": ["Not So"]},
        {"name": "kept", "prompt": [], "type": "chat"},
        [],
    ],
)
def test_what_is_no_prompt_is_refused(viewer: Viewer, body: Any) -> None:
    """A sentence says what is wrong, nothing is kept; parameters that are not served are refused."""
    kept = {"name": "kept", "prompt": "x"}
    assert viewer.client.post(PROMPTS, json=kept).status_code == 200
    answer = viewer.client.post(PROMPTS, json=body)
    assert answer.status_code == 400
    assert answer.json()["message"].endswith(".")
    assert viewer.client.get(PROMPTS).json()["meta"]["totalItems"] == 1
    for query in ("?color=red", "/kept?version=x", "/kept?version=0", "/kept?label=", "?page=0", "?name=a&name=b"):
        assert viewer.client.get(PROMPTS + query).status_code == 400
    assert viewer.client.post(PROMPTS, content="{}", headers={"content-type": "text/plain"}).status_code == 415
