"""Datasets on Langfuse's own paths: items under a name, each with its versions, and the media that they refer to."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

from telemetry.export.media import REFERENCE
from telemetry.viewer.access import Keys, Parameters
from telemetry.viewer.api import read_json
from telemetry.viewer.media import media_record
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store

LIMIT = 4 * 1024 * 1024
# The fields of an item that may refer to media.
REFERRING = ("input", "expectedOutput", "metadata")

router = APIRouter(prefix="/api/public", dependencies=[Keys, Parameters])


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class NewDataset(_Model):
    """A dataset; one of the same name is changed."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    description: str | None = None
    metadata: JsonValue = None
    input_schema: dict[str, JsonValue] | None = None
    expected_output_schema: dict[str, JsonValue] | None = None


class Dataset(NewDataset):
    """A stored dataset."""

    id: str
    project_id: str = PROJECT
    created_at: datetime
    updated_at: datetime


class NewItem(_Model):
    """An item of a dataset; one with the same id gets a new version, with the fields that are given."""

    dataset_name: str
    id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    input: JsonValue = None
    expected_output: JsonValue = None
    metadata: JsonValue = None
    source_trace_id: str | None = None
    source_observation_id: str | None = None
    status: Literal["ACTIVE", "ARCHIVED"] | None = None


class Item(NewItem):
    """One version of an item; it counts from `updated_at` on."""

    id: str = Field()  # pyright: ignore[reportIncompatibleVariableOverride] - a stored item has one
    status: Literal["ACTIVE", "ARCHIVED"] = "ACTIVE"  # pyright: ignore[reportIncompatibleVariableOverride] - as above
    dataset_id: str
    created_at: datetime
    updated_at: datetime


class PageQuery(_Model):
    """The page of a list to read."""

    model_config = ConfigDict(extra="forbid")

    page: int = Field(default=1, ge=1)
    limit: int = Field(default=50, ge=1, le=100)


class ItemsQuery(PageQuery):
    """Which items to list: of a dataset, made from a trace, or as they were at a time."""

    dataset_name: str | None = None
    source_trace_id: str | None = None
    source_observation_id: str | None = None
    version: datetime | None = None


DATASET, ITEM = TypeAdapter(Dataset), TypeAdapter(Item)
# Of each item its newest version until then, the items that were created last first.
ITEMS = """
SELECT body FROM dataset_items AS item WHERE updated <= :until
AND number = (SELECT max(number) FROM dataset_items WHERE id = item.id AND updated <= :until)
AND (:dataset IS NULL OR dataset = :dataset) ORDER BY (SELECT min(number) FROM dataset_items WHERE id = item.id) DESC
"""
LATEST = "SELECT body FROM dataset_items WHERE id = ? ORDER BY number DESC LIMIT 1"


@router.post("/v2/datasets")
async def create_dataset(request: Request) -> dict[str, Any]:
    """Store a dataset, or change the one of this name."""
    new = await read_json(request, LIMIT, NewDataset)
    return await run_in_threadpool(store_dataset, request.app.state.store, new)


@router.get("/v2/datasets")
def list_datasets(request: Request, query: Annotated[PageQuery, Query()]) -> dict[str, Any]:
    """Return a page of the datasets, by name."""
    with request.app.state.store.reading() as db:
        rows = db.execute("SELECT body FROM datasets ORDER BY name").fetchall()
    return _page([_record(DATASET.validate_json(body)) for (body,) in rows], query)


@router.get("/v2/datasets/{name:path}")
def read_dataset(request: Request, name: str) -> dict[str, Any]:
    """Return the dataset of this name."""
    with request.app.state.store.reading() as db:
        return _record(_dataset(db, name))


@router.post("/dataset-items")
async def create_item(request: Request) -> dict[str, Any]:
    """Store an item, or a new version of the one with this id."""
    new = await read_json(request, LIMIT, NewItem)
    item = await run_in_threadpool(store_item, request.app.state.store, new)
    return _item_record(request, item)


@router.get("/dataset-items")
def list_items(request: Request, query: Annotated[ItemsQuery, Query()]) -> dict[str, Any]:
    """Return a page of the items that are not archived, as they are now or were at the time of `version`."""
    until = _microseconds(query.version or datetime.now(UTC))
    with request.app.state.store.reading() as db:
        if query.dataset_name is not None:
            _dataset(db, query.dataset_name)
        rows = db.execute(ITEMS, {"until": until, "dataset": query.dataset_name}).fetchall()
    items = [ITEM.validate_json(body) for (body,) in rows]
    found = [
        item
        for item in items
        if item.status == "ACTIVE"
        and query.source_trace_id in (None, item.source_trace_id)
        and query.source_observation_id in (None, item.source_observation_id)
    ]
    return _page([_item_record(request, item) for item in found], query)


@router.get("/dataset-items/{item_id}")
def read_item(request: Request, item_id: str) -> dict[str, Any]:
    """Return the newest version of an item, archived or not."""
    with request.app.state.store.reading() as db:
        return _item_record(request, _item(db, item_id))


@router.delete("/dataset-items/{item_id}")
def delete_item(request: Request, item_id: str) -> dict[str, str]:
    """Forget an item with all its versions."""
    with request.app.state.store.writing() as db:
        _item(db, item_id)
        db.execute("DELETE FROM dataset_items WHERE id = ?", (item_id,))
    return {"message": "Dataset item successfully deleted"}


def dataset_names(store: Store) -> list[str]:
    """Return the names of the datasets, in order."""
    with store.reading() as db:
        return [name for (name,) in db.execute("SELECT name FROM datasets ORDER BY name")]


def store_dataset(store: Store, new: NewDataset) -> dict[str, Any]:
    """Store a dataset, or change the one of this name; return its record."""
    now = datetime.now(UTC)
    with store.writing() as db:
        row = db.execute("SELECT body FROM datasets WHERE name = ?", (new.name,)).fetchone()
        known = DATASET.validate_json(row[0]) if row else None
        fields = {"id": uuid4().hex, "created_at": now, **(known.model_dump() if known else {})}
        dataset = Dataset.model_validate({**fields, **new.model_dump(exclude_unset=True), "updated_at": now})
        db.execute("INSERT OR REPLACE INTO datasets VALUES (?, ?)", (dataset.name, to_json(dataset)))
    return _record(dataset)


def store_item(store: Store, new: NewItem) -> Item:
    """Store an item, or a new version of the one with this id."""
    now = datetime.now(UTC)
    with store.writing() as db:
        dataset = _dataset(db, new.dataset_name)
        row = db.execute(LATEST, (new.id,)).fetchone()
        known = ITEM.validate_json(row[0]) if row else None
        if known and known.dataset_id != dataset.id:
            raise HTTPException(400, f"The item {known.id:.50} belongs to another dataset.")
        fields = {"id": new.id or uuid4().hex, "dataset_id": dataset.id, "created_at": now}
        given = {key: value for key, value in new.model_dump(exclude_unset=True).items() if key not in ("id", "status")}
        status = new.status or (known.status if known else "ACTIVE")
        item = Item.model_validate(
            {**fields, **(known.model_dump() if known else {}), **given, "status": status, "updated_at": now}
        )
        values = (item.id, dataset.name, _microseconds(now), to_json(item))
        db.execute("INSERT INTO dataset_items (id, dataset, updated, body) VALUES (?, ?, ?, ?)", values)
    return item


def _dataset(db: sqlite3.Connection, name: str) -> Dataset:
    if row := db.execute("SELECT body FROM datasets WHERE name = ?", (name,)).fetchone():
        return DATASET.validate_json(row[0])
    raise HTTPException(404, f"There is no dataset {name:.100}.")


def _item(db: sqlite3.Connection, item_id: str) -> Item:
    if row := db.execute(LATEST, (item_id,)).fetchone():
        return ITEM.validate_json(row[0])
    raise HTTPException(404, f"There is no item {item_id:.100}.")


def _record(stored: Dataset | Item) -> dict[str, Any]:
    return stored.model_dump(mode="json", by_alias=True)


def _item_record(request: Request, item: Item) -> dict[str, Any]:
    record = _record(item)
    references = [
        {"field": field, "referenceString": text, "jsonPath": path, "media": media}
        for field in REFERRING
        for path, text in _texts(record[field], "$")
        if (found := REFERENCE.fullmatch(text)) and (media := media_record(request, found["id"]))
    ]
    return {**record, "version": record["updatedAt"], "mediaReferences": references}


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each string of a value with its place, as a JSON path."""
    if isinstance(value, str):
        yield path, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _texts(part, f"{path}[{key!r}]")


def _page(records: list[dict[str, Any]], query: PageQuery) -> dict[str, Any]:
    start = (query.page - 1) * query.limit
    pages = -(-len(records) // query.limit)
    meta = {"page": query.page, "limit": query.limit, "totalItems": len(records), "totalPages": pages}
    return {"data": records[start : start + query.limit], "meta": meta}


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
