"""Images, sound and files on Langfuse's own paths: stored once by their content, found by their reference."""

import hashlib
import hmac
import re
import time
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from telemetry.viewer.access import Keys, Parameters, Reader
from telemetry.viewer.api import read_body, read_json
from telemetry.viewer.settings import ViewerSettings
from telemetry.viewer.store import Store

MAX_BYTES = 32 * 1024 * 1024
LIMIT = 16 * 1024
VALID_S = 3600
# What a browser may show by itself: nothing in these can run.
SHOWN = re.compile(r"image/(?!svg)[\w.+-]+|audio/[\w.+-]+|video/[\w.+-]+|application/pdf|text/plain")

router = APIRouter(prefix="/api/public/media", dependencies=[Parameters])
page_router = APIRouter(prefix="/media", dependencies=[Reader])


class NewMedia(BaseModel):
    """What is to be uploaded, and to where it belongs."""

    model_config = ConfigDict(alias_generator=to_camel)

    content_type: Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+$", max_length=100)]
    content_length: Annotated[int, Field(ge=1, le=MAX_BYTES)]
    sha256_hash: Annotated[str, Field(min_length=44, max_length=44)]
    field: Literal["input", "output", "expectedOutput", "metadata"]
    trace_id: str | None = None
    observation_id: str | None = None
    dataset_id: str | None = None
    dataset_item_id: str | None = None


@router.post("", dependencies=[Keys])
async def request_upload(request: Request) -> dict[str, Any]:
    """Return where to upload a file, unless it is here already."""
    new = await read_json(request, LIMIT, NewMedia)
    if (new.trace_id is None) == (new.dataset_id is None):
        raise HTTPException(400, "Name either the trace or the dataset that the media belongs to.")
    media_id = await run_in_threadpool(_announce, request.app.state.store, new)
    url = None if media_id is None else _signed(request, media_id, "upload")
    return {"mediaId": media_id or _media_id(new.sha256_hash), "uploadUrl": url}


@router.put("/{media_id}/upload")
async def upload(request: Request, media_id: str, expires: int, signature: str) -> Response:
    """Keep the bytes, if they are those that were announced."""
    _check_signature(request, media_id, "upload", expires, signature)
    body = await read_body(request, MAX_BYTES)
    await run_in_threadpool(_keep, request.app.state.store, media_id, body)
    return Response(status_code=200)


@router.patch("/{media_id}", dependencies=[Keys], status_code=204)
def report_upload(request: Request, media_id: str) -> Response:
    """Take note of an upload's outcome, which is known here."""
    with request.app.state.store.reading() as db:
        if not db.execute("SELECT 1 FROM media WHERE id = ?", (media_id,)).fetchone():
            raise HTTPException(404, f"There is no media {media_id:.50}.")
    return Response(status_code=204)


@router.get("/{media_id}", dependencies=[Keys])
def read_media(request: Request, media_id: str) -> dict[str, Any]:
    """Return what is known of a file, and where its bytes are."""
    if record := media_record(request, media_id):
        return record
    raise HTTPException(404, f"There is no media {media_id:.50}.")


@router.get("/{media_id}/content")
def download(request: Request, media_id: str, expires: int, signature: str) -> Response:
    """Return the bytes to whom the address was given."""
    _check_signature(request, media_id, "content", expires, signature)
    return _content(request, media_id)


@page_router.get("/{media_id}")
def show(request: Request, media_id: str) -> Response:
    """Return the bytes for a page."""
    return _content(request, media_id)


def media_record(request: Request, media_id: str) -> dict[str, Any] | None:
    """Return what the API says of a file that was uploaded, None if there is none."""
    query = "SELECT type, size, uploaded FROM media WHERE id = ? AND uploaded IS NOT NULL"
    with request.app.state.store.reading() as db:
        row = db.execute(query, (media_id,)).fetchone()
    if row is None:
        return None
    kind, size, uploaded = row
    return {
        "mediaId": media_id,
        "contentType": kind,
        "contentLength": size,
        "uploadedAt": _moment(uploaded),
        "url": _signed(request, media_id, "content"),
        "urlExpiry": _moment(time.time() + VALID_S),
    }


def _announce(store: Store, new: NewMedia) -> str | None:
    """Note what will be uploaded; return its id, None if it is here already."""
    media_id = _media_id(new.sha256_hash)
    with store.writing() as db:
        known = db.execute("SELECT uploaded FROM media WHERE id = ?", (media_id,)).fetchone()
        if known and known[0] is not None:
            return None
        row = (media_id, new.content_type, new.content_length, new.sha256_hash)
        db.execute("INSERT OR REPLACE INTO media (id, type, size, sha256) VALUES (?, ?, ?, ?)", row)
    return media_id


def _keep(store: Store, media_id: str, body: bytes) -> None:
    with store.writing() as db:
        row = db.execute("SELECT size, sha256 FROM media WHERE id = ?", (media_id,)).fetchone()
        if row is None or (len(body), hashlib.sha256(body).digest()) != (row[0], b64decode(row[1])):
            raise HTTPException(400, "These are not the bytes that were announced.")
        db.execute("UPDATE media SET body = ?, uploaded = ? WHERE id = ?", (body, time.time(), media_id))


def _content(request: Request, media_id: str) -> Response:
    with request.app.state.store.reading() as db:
        row = db.execute("SELECT type, body FROM media WHERE id = ? AND uploaded IS NOT NULL", (media_id,)).fetchone()
    if row is None:
        raise HTTPException(404, f"There is no media {media_id:.50}.")
    kind, body = row
    if SHOWN.fullmatch(kind):
        return Response(body, media_type=kind)
    return Response(body, media_type="application/octet-stream", headers={"Content-Disposition": "attachment"})


def _media_id(sha256_hash: str) -> str:
    try:
        digest = b64decode(sha256_hash, validate=True)
    except (NotBase64, ValueError):
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise HTTPException(400, "sha256Hash must be the hash in Base64.")
    return urlsafe_b64encode(digest).decode()[:22]


def _signed(request: Request, media_id: str, action: str) -> str:
    expires = round(time.time()) + VALID_S
    signature = _signature(request.app.state.settings, media_id, action, expires)
    base = str(request.base_url).rstrip("/")
    return f"{base}/api/public/media/{media_id}/{action}?expires={expires}&signature={signature}"


def _check_signature(request: Request, media_id: str, action: str, expires: int, signature: str) -> None:
    expected = _signature(request.app.state.settings, media_id, action, expires)
    if expires < time.time() or not hmac.compare_digest(signature.encode(), expected.encode()):
        raise HTTPException(403, "This address is not valid, or not any more: ask for a new one.")


def _signature(settings: ViewerSettings, media_id: str, action: str, expires: int) -> str:
    key = settings.secret_key.get_secret_value().encode()
    return hmac.new(key, f"{action} {media_id} {expires}".encode(), hashlib.sha256).hexdigest()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
