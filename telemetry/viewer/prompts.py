"""Prompts on Langfuse's own paths: versions under a name, and labels that each point at one version."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

from telemetry.viewer.access import Keys, Parameters
from telemetry.viewer.api import read_json
from telemetry.viewer.store import Store

LATEST = "latest"
DEFAULT_LABEL = "production"
LIMIT = 1024 * 1024

Name = Annotated[str, Field(min_length=1, max_length=255)]
Label = Annotated[str, Field(min_length=1, max_length=36, pattern=r"^[a-z0-9_.-]+$")]

router = APIRouter(prefix="/api/public/v2/prompts", dependencies=[Keys, Parameters])


class NewPrompt(BaseModel):
    """A new version of a name; without tags it keeps those of the earlier versions."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore")

    name: Name
    type: Literal["text", "chat"] = "text"
    prompt: str | list[dict[str, JsonValue]]
    config: JsonValue = None
    labels: list[Label] | None = None
    tags: list[str] | None = None
    commit_message: str | None = None

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        if (self.type == "text") != isinstance(self.prompt, str):
            raise ValueError(f"a prompt of type {self.type} must be a {'string' if self.type == 'text' else 'list'}")
        return self


class NewLabels(BaseModel):
    """Further labels for a version."""

    model_config = ConfigDict(alias_generator=to_camel)

    new_labels: list[Label]


class Prompt(BaseModel):
    """One stored version of a prompt; `latest` is not stored, it always means the newest version."""

    name: str
    version: int
    type: str
    prompt: str | list[dict[str, JsonValue]]
    config: JsonValue
    labels: list[str]
    tags: list[str]
    commit_message: str | None
    updated_at: datetime

    def record(self, latest: int) -> dict[str, Any]:
        """Return it as the API reads it back."""
        record = self.model_dump(mode="json", exclude={"commit_message", "updated_at"})
        labels = [*self.labels, *([LATEST] if self.version == latest else [])]
        return record | {"labels": labels, "commitMessage": self.commit_message, "resolutionGraph": None}


class VersionQuery(BaseModel):
    """The version of a prompt to read; `resolve` has no effect: a prompt that refers to others is as it was stored."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(default=None, ge=1)
    label: str | None = Field(default=None, min_length=1)
    resolve: bool = True


class PromptsQuery(BaseModel):
    """The parameters of the list of prompts."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    name: str | None = Field(default=None, min_length=1)
    label: str | None = Field(default=None, min_length=1)
    tag: str | None = Field(default=None, min_length=1)
    page: int = Field(default=1, ge=1)
    limit: int = Field(default=10, ge=1, le=100)


PROMPT = TypeAdapter(Prompt)


@router.post("")
async def create_prompt(request: Request) -> dict[str, Any]:
    """Store a prompt as the next version of its name, and move its labels to it."""
    new = await read_json(request, LIMIT, NewPrompt)
    return await run_in_threadpool(_create, request.app.state.store, new)


@router.get("")
def list_prompts(request: Request, query: Annotated[PromptsQuery, Query()]) -> dict[str, Any]:
    """Return a page of the prompts by name, each with its versions."""
    grouped: dict[str, list[Prompt]] = {}
    with request.app.state.store.reading() as db:
        for (body,) in db.execute("SELECT body FROM prompts ORDER BY name, version"):
            prompt = PROMPT.validate_json(body)
            grouped.setdefault(prompt.name, []).append(prompt)
    found = [record for versions in grouped.values() if (record := _listed(versions, query))]
    start = (query.page - 1) * query.limit
    pages = -(-len(found) // query.limit)
    meta = {"page": query.page, "limit": query.limit, "totalItems": len(found), "totalPages": pages}
    return {"data": found[start : start + query.limit], "meta": meta}


@router.patch("/{name:path}/versions/{version}")
async def label_prompt(request: Request, name: str, version: int) -> dict[str, Any]:
    """Move labels to a version from any other of its name."""
    new = await read_json(request, LIMIT, NewLabels)
    if LATEST in new.new_labels:
        raise HTTPException(400, "latest always means the newest version: it cannot be set.")
    return await run_in_threadpool(_label, request.app.state.store, name, version, new.new_labels)


@router.get("/{name:path}")
def read_prompt(request: Request, name: str, query: Annotated[VersionQuery, Query()]) -> dict[str, Any]:
    """Return the requested version, by default the one with the label `production`."""
    with request.app.state.store.reading() as db:
        versions = _versions(db, name)
    return _chosen(versions, name, query).record(versions[-1].version)


@router.delete("/{name:path}", status_code=204)
def delete_prompts(request: Request, name: str, query: Annotated[VersionQuery, Query()]) -> Response:
    """Delete the requested versions, by default all of them."""
    with request.app.state.store.writing() as db:
        versions = _versions(db, name)
        everything = query.version is None and query.label is None
        gone = versions if everything and versions else [_chosen(versions, name, query)]
        db.executemany("DELETE FROM prompts WHERE name = ? AND version = ?", [(name, each.version) for each in gone])
    return Response(status_code=204)


def _create(store: Store, new: NewPrompt) -> dict[str, Any]:
    with store.writing() as db:
        versions = _versions(db, new.name)
        if versions and versions[-1].type != new.type:
            raise HTTPException(400, f"{new.name} is a {versions[-1].type} prompt: choose another name for this one.")
        tags = new.tags if new.tags is not None else versions[-1].tags if versions else []
        labels = [label for label in dict.fromkeys(new.labels or []) if label != LATEST]
        number = versions[-1].version + 1 if versions else 1
        fields = new.model_dump(include={"name", "type", "prompt", "commit_message"})
        config = {} if new.config is None else new.config
        prompt = Prompt(**fields, config=config, version=number, labels=labels, tags=tags, updated_at=datetime.now(UTC))
        for earlier in versions:
            left = [label for label in earlier.labels if label not in labels]
            _write(db, earlier.model_copy(update={"labels": left, "tags": tags}))
        _write(db, prompt)
    return prompt.record(number)


def _label(store: Store, name: str, version: int, labels: Sequence[str]) -> dict[str, Any]:
    with store.writing() as db:
        versions = _versions(db, name)
        prompt = _chosen(versions, name, VersionQuery(version=version))
        for each in versions:
            left = [label for label in each.labels if label not in labels]
            each.labels = [*dict.fromkeys([*each.labels, *labels])] if each is prompt else left
            _write(db, each)
    return prompt.record(versions[-1].version)


def _chosen(versions: Sequence[Prompt], name: str, query: VersionQuery) -> Prompt:
    label = query.label or DEFAULT_LABEL
    for prompt in reversed(versions):
        if query.version is not None and query.label is None:
            fits = prompt.version == query.version
        else:
            fits = label in prompt.labels or (label == LATEST and prompt is versions[-1])
        if fits and query.version in (None, prompt.version):
            return prompt
    what = f"version {query.version}" if query.version is not None else f"label {label}"
    raise HTTPException(404, f"There is no prompt {name} with {what}.")


def _listed(versions: Sequence[Prompt], query: PromptsQuery) -> dict[str, Any] | None:
    newest = versions[-1].version
    fitting = [
        prompt
        for prompt in versions
        if query.name in (None, prompt.name)
        and (query.label is None or query.label in prompt.record(newest)["labels"])
        and (query.tag is None or query.tag in prompt.tags)
    ]
    if not fitting:
        return None
    return {
        "name": fitting[-1].name,
        "type": fitting[-1].type,
        "versions": [prompt.version for prompt in fitting],
        "labels": [*dict.fromkeys(label for prompt in fitting for label in prompt.record(newest)["labels"])],
        "tags": fitting[-1].tags,
        "lastUpdatedAt": max(prompt.updated_at for prompt in fitting).isoformat(),
        "lastConfig": fitting[-1].config,
    }


def _versions(db: sqlite3.Connection, name: str) -> list[Prompt]:
    rows = db.execute("SELECT body FROM prompts WHERE name = ? ORDER BY version", (name,))
    return [PROMPT.validate_json(body) for (body,) in rows]


def _write(db: sqlite3.Connection, prompt: Prompt) -> None:
    row = (prompt.name, prompt.version, to_json(prompt))
    db.execute("INSERT OR REPLACE INTO prompts (name, version, body) VALUES (?, ?, ?)", row)
