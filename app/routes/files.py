"""The files of a thread: each operation is a span of the thread's session."""

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
from app.caller import CallerDep
from app.database.records import Thread
from app.files import File, Files, Refusal, Upload
from app.schema import FileInfo, FileList, FileRemoved, ThreadId

router = APIRouter(prefix="/files")
# Beside the file itself: the lines around it.
ENVELOPE = 16_384

ThreadQuery = Annotated[ThreadId, Query(description="the conversation; uploading begins a new one under a new id")]


@router.post("", status_code=201)
async def upload(request: Request, caller: CallerDep, thread_id: ThreadQuery) -> FileInfo:
    """Keep a file, sent as the field `file` of a multipart form, for the thread."""
    user = caller.acting_for(None)
    await request.app.state.turns.own_or_new(thread_id, user)
    with _refusals(), _span("upload file", thread_id, user) as span:
        incoming = await Upload.begin(request.headers.get("content-type", ""), _body(request))
        claim = partial(request.app.state.turns.claim, Thread(thread_id, user, DEFAULT_AGENT))
        file = await _files(request).keep(incoming, thread_id, user, claim)
        span.set_attributes(_about(request, file))
        return FileInfo(**known(file), **await _ids(request, thread_id))


@router.get("")
async def list_files(request: Request, caller: CallerDep, thread_id: ThreadQuery) -> FileList:
    """Return what is known of the thread's files, oldest first."""
    user = caller.acting_for(None)
    with _span("list files", thread_id, user) as span:
        await request.app.state.turns.own(thread_id, user)
        found = await _files(request).of_thread(thread_id, user)
        span.set_attributes({"file.count": len(found), "file.size": sum(file.size for file in found)})
        ids = await _ids(request, thread_id)
        return FileList(files=[FileInfo(**known(file), **ids) for file in found], **ids)


@router.get("/{file_id}", response_class=Response)
async def download(file_id: str, request: Request, caller: CallerDep) -> Response:
    """Stream the file's bytes; a browser is told to keep them and not to run them."""
    file = await _find(request, file_id, caller.acting_for(None))
    with _refusals(), _span("download file", file.thread_id, file.user_id) as span:
        span.set_attributes(_about(request, file))
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
async def remove(file_id: str, request: Request, caller: CallerDep) -> FileRemoved:
    """Remove the file."""
    file = await _find(request, file_id, caller.acting_for(None))
    with _span("delete file", file.thread_id, file.user_id) as span:
        span.set_attributes(_about(request, file))
        await _files(request).remove(file)
        return FileRemoved(file_id=file_id, **await _ids(request, file.thread_id))


@contextmanager
def _span(name: str, thread_id: str, user: str) -> Iterator[Span]:
    with telemetry.scope(session_id=thread_id, user_id=user or None), telemetry.span(name) as span:
        yield span


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        # What is not read of the body would be taken for the next request.
        raise HTTPException(refusal.status, str(refusal), {"Connection": "close"}) from refusal


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise Refusal(400, "The upload broke off before its end: send it again.") from error


async def _find(request: Request, file_id: str, user: str) -> File:
    file = await _files(request).find(file_id, user)
    if file is None:
        raise HTTPException(404, "There is no such file.")
    return file


def _files(request: Request) -> Files:
    return request.app.state.files


async def _ids(request: Request, thread_id: str) -> dict[str, Any]:
    trace = telemetry.current_trace()
    runs = await request.app.state.turns.records.of_thread(thread_id)
    return {
        "trace_id": trace.trace_id if trace and trace.sampled else None,
        "run_id": runs[-1].run_id if runs else None,
    }


def known(file: File) -> dict[str, Any]:
    """Return what clients are told of the file."""
    return {name: getattr(file, name) for name in ("file_id", "thread_id", "name", "size", "type", "sha256", "created")}


def _about(request: Request, file: File) -> dict[str, AttributeValue]:
    """Return what a trace says of the file; its name may say too much."""
    name = file.name
    if request.app.state.settings.hash_file_names:
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
    return {"file.name": name, "file.size": file.size, "file.type": file.type, "file.id": file.file_id}
