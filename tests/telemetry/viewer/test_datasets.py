"""Datasets and media, kept and read by the unchanged Langfuse SDK."""

from datetime import UTC, datetime

import httpx
import pytest
from langfuse import Langfuse
from langfuse.api import DatasetStatus, Error, MediaContentType, NotFoundError
from langfuse.media import LangfuseMedia, LangfuseMediaReference

from tests.telemetry.viewer.conftest import Viewer

IMAGE = b"\x89PNG\r\n\x1a\n not much of a picture"


def test_a_dataset_comes_back_with_its_items(langfuse: Langfuse) -> None:
    """Items come newest first, in pages; a dataset of the same name is changed, and names may hold anything."""
    langfuse.create_dataset(name="with spaces/and more", description="first", metadata={"k": 1})
    langfuse.create_dataset(name="with spaces/and more", description="second")
    for number in range(5):
        langfuse.create_dataset_item(dataset_name="with spaces/and more", input={"n": number}, expected_output=number)

    dataset = langfuse.get_dataset("with spaces/and more", fetch_items_page_size=2)
    assert (dataset.description, dataset.metadata) == ("second", None)  # the SDK sends what it is not given
    assert [item.input for item in dataset.items] == [{"n": number} for number in (4, 3, 2, 1, 0)]
    assert [each.name for each in langfuse.api.datasets.list().data] == ["with spaces/and more"]


def test_an_item_has_versions(viewer: Viewer, langfuse: Langfuse) -> None:
    """A new version keeps what it is not given; the earlier one counts for the time before; archived is not listed."""
    langfuse.create_dataset(name="d")
    item = langfuse.create_dataset_item(dataset_name="d", id="one", input="a", expected_output="b")
    before = datetime.now(UTC)
    changed = viewer.client.post("/api/public/dataset-items", json={"datasetName": "d", "id": "one", "input": "A"})
    assert changed.status_code == 200
    langfuse.create_dataset_item(dataset_name="d", input="two")

    now, then = langfuse.get_dataset("d").items, langfuse.get_dataset("d", version=before).items
    assert [(each.input, each.expected_output) for each in now] == [("two", None), ("A", "b")]
    assert [(each.id, each.input) for each in then] == [("one", "a")]
    assert now[1].created_at == item.created_at

    langfuse.create_dataset_item(dataset_name="d", id="one", status=DatasetStatus.ARCHIVED)
    assert [each.input for each in langfuse.get_dataset("d").items] == ["two"]
    assert langfuse.api.dataset_items.get("one").status == DatasetStatus.ARCHIVED
    langfuse.api.dataset_items.delete("one")
    with pytest.raises(NotFoundError):
        langfuse.api.dataset_items.get("one")


def test_what_does_not_fit_is_refused(viewer: Viewer, langfuse: Langfuse) -> None:
    """A dataset that is not there, an item of another one, a parameter that is not served."""
    langfuse.create_dataset(name="a")
    langfuse.create_dataset(name="b")
    langfuse.create_dataset_item(dataset_name="a", id="one", input=1)
    with pytest.raises(NotFoundError):
        langfuse.get_dataset("c")
    with pytest.raises(NotFoundError):
        langfuse.create_dataset_item(dataset_name="c", input=1)
    with pytest.raises(Error):
        langfuse.create_dataset_item(dataset_name="b", id="one", input=1)
    for query in ("offset=3", "page=0", "limit=1000", "version=yesterday", "page=1&page=2"):
        assert viewer.client.get(f"/api/public/dataset-items?{query}").status_code == 400


def test_media_of_an_item_can_be_fetched(langfuse: Langfuse) -> None:
    """The SDK uploads what is in an item once, and gets it back from its reference."""
    langfuse.create_dataset(name="d")
    given = LangfuseMedia(content_bytes=IMAGE, content_type=MediaContentType.IMAGE_PNG)
    langfuse.create_dataset_item(dataset_name="d", input={"picture": given, "more": [[given]]}, metadata={"m": given})
    (item,) = langfuse.get_dataset("d").items

    for found in (item.input["picture"], item.input["more"][0][0], item.metadata["m"]):
        assert isinstance(found, LangfuseMediaReference)
        assert found.fetch_bytes() == IMAGE


def test_media_is_not_for_everybody(viewer: Viewer, langfuse: Langfuse) -> None:
    """Bytes other than those announced are refused, and so is an address that was not given."""
    media = LangfuseMedia(content_bytes=IMAGE, content_type=MediaContentType.IMAGE_PNG)
    assert media._content_sha256_hash
    body = {
        "contentType": "image/png",
        "contentLength": len(IMAGE),
        "sha256Hash": media._content_sha256_hash,
        "field": "input",
        "traceId": "1" * 32,
    }
    announced = viewer.client.post("/api/public/media", json=body).json()
    assert viewer.client.get(f"/api/public/media/{announced['mediaId']}").status_code == 404
    assert httpx.put(announced["uploadUrl"], content=b"other").status_code == 400
    assert httpx.put(announced["uploadUrl"] + "0", content=IMAGE).status_code == 403
    assert httpx.put(announced["uploadUrl"], content=IMAGE).status_code == 200

    record = viewer.client.get(f"/api/public/media/{announced['mediaId']}").json()
    assert httpx.get(record["url"]).content == IMAGE
    assert httpx.get(record["url"].replace("expires=", "expires=9")).status_code == 403
    assert viewer.client.post("/api/public/media", json=body).json()["uploadUrl"] is None
    for change in ({"contentLength": 10**9}, {"sha256Hash": "x" * 44}, {"datasetId": "d"}, {"traceId": None}):
        assert viewer.client.post("/api/public/media", json={**body, **change}).status_code == 400
    assert httpx.post(f"{viewer.url}/api/public/media", json=body).status_code == 401
