"""The files of a thread; each operation is a span that names the thread."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue
from starlette.requests import ClientDisconnect

import telemetry
from app.agents import DEFAULT_AGENT
from app.auth import CallerDep
from app.database.thread_store import Thread
from app.files import File, Files, Refusal, Upload
from app.routes.thread_scope import thread_scope
from app.schema import FileInfo, FileList, FileRemoved, ThreadId

router = APIRouter(prefix="/files")
# The most bytes of a multipart body besides the file.
ENVELOPE_BYTES = 16_384

ThreadQuery = Annotated[ThreadId, Query(description="the conversation; an upload with a new id creates one")]
# Declared here, because the body is read while it arrives.
UPLOAD_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        }
    },
}
FILE_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes of the file, under its own media type",
        # Generators of clients know the first; the file's own type is sent.
        "content": {
            media: {"schema": {"type": "string", "format": "binary"}} for media in ("application/octet-stream", "*/*")
        },
    }
}


@router.post("", status_code=201, openapi_extra={"requestBody": UPLOAD_BODY})
async def upload(request: Request, caller: CallerDep, thread_id: ThreadQuery) -> FileInfo:
    """Store a file, sent as the field `file` of a multipart form, for the thread."""
    user = caller.acting_for(None)
    await request.app.state.turns.find_thread(thread_id, user)
    with _refusals_as_http_errors(), _span("upload file", thread_id, user) as span:
        incoming = await Upload.begin(request.headers.get("content-type", ""), _body(request))
        create_thread = partial(request.app.state.turns.get_or_create_thread, Thread(thread_id, user, DEFAULT_AGENT))
        file = await _files(request).save(incoming, thread_id, user, create_thread)
        span.set_attributes(_file_attributes(request, file))
        return FileInfo(**file_fields(file), **await _ids(request, thread_id))


@router.get("")
async def list_files(request: Request, caller: CallerDep, thread_id: ThreadQuery) -> FileList:
    """Return the thread's files, oldest first."""
    user = caller.acting_for(None)
    with _span("list files", thread_id, user) as span:
        await request.app.state.turns.get_thread(thread_id, user)
        files = await _files(request).of_thread(thread_id, user)
        span.set_attributes({"file.count": len(files), "file.size": sum(file.size for file in files)})
        ids = await _ids(request, thread_id)
        return FileList(files=[FileInfo(**file_fields(file), **ids) for file in files], **ids)


@router.get("/{file_id}", response_class=Response, responses=FILE_CONTENT)
async def download(file_id: str, request: Request, caller: CallerDep) -> Response:
    """Stream the file's bytes; a browser saves them and does not run them."""
    file = await _find(request, file_id, caller.acting_for(None))
    with _refusals_as_http_errors(), _span("download file", file.thread_id, file.user_id) as span:
        span.set_attributes(_file_attributes(request, file))
        ids = await _ids(request, file.thread_id)
        headers = {
            "Content-Length": str(file.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
            "Content-Security-Policy": "sandbox",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
            **{f"X-{name.replace('_', '-').title()}": value for name, value in ids.items() if value},
        }
        content = await _files(request).open(file)
        return StreamingResponse(content, media_type=file.type, headers=headers)


@router.delete("/{file_id}")
async def delete_file(file_id: str, request: Request, caller: CallerDep) -> FileRemoved:
    """Delete the file."""
    file = await _find(request, file_id, caller.acting_for(None))
    with _span("delete file", file.thread_id, file.user_id) as span:
        span.set_attributes(_file_attributes(request, file))
        await _files(request).delete(file)
        return FileRemoved(file_id=file_id, **await _ids(request, file.thread_id))


@contextmanager
def _span(name: str, thread_id: str, user: str) -> Iterator[Span]:
    with thread_scope(thread_id, user), telemetry.span(name) as span:
        yield span


@contextmanager
def _refusals_as_http_errors() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        # The unread rest of the body would be read as the next request.
        raise HTTPException(refusal.status, str(refusal), {"Connection": "close"}) from refusal


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise Refusal(400, "The upload was cut off: send it again.") from error


async def _find(request: Request, file_id: str, user: str) -> File:
    file = await _files(request).find(file_id, user)
    if file is None:
        raise HTTPException(404, "There is no such file.")
    return file


def _files(request: Request) -> Files:
    return request.app.state.files


async def _ids(request: Request, thread_id: str) -> dict[str, Any]:
    trace = telemetry.current_trace()
    runs = await request.app.state.turns.store.runs_of(thread_id)
    return {
        "trace_id": trace.trace_id if trace and trace.sampled else None,
        "run_id": runs[-1].run_id if runs else None,
    }


def file_fields(file: File) -> dict[str, Any]:
    """Return the fields of the file that clients see."""
    return {name: getattr(file, name) for name in ("file_id", "thread_id", "name", "size", "type", "sha256", "created")}


def _file_attributes(request: Request, file: File) -> dict[str, AttributeValue]:
    """Return the span attributes of the file, with its name hashed if set."""
    name = file.name
    if request.app.state.settings.hash_file_names:
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
    return {"file.name": name, "file.size": file.size, "file.type": file.type, "file.id": file.file_id}
