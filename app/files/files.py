"""Files come in, are read and go: bytes and catalogue in step."""

import errno
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar
from uuid import uuid4

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.ext.asyncio import AsyncEngine

from app.files.catalogue import Catalogue, File
from app.files.content import HEAD_BYTES, Refusal, checked_name, checked_type
from app.files.store import Store, Writing
from app.files.upload import Upload

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK = 1024 * 1024
# Nobody is still writing what has not changed for so long.
ABANDONED_S = 3600
# What else lies in a store is somebody else's.
_OUR_KEY = re.compile(r"[0-9a-f]{32}")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Files:
    """The files of all threads; a file is found only while it stands in the catalogue."""

    catalogue: Catalogue
    store: Store
    most_bytes: int
    types: Sequence[str]

    async def keep(self, upload: Upload, thread_id: str, user_id: str, claim: Callable[[], Awaitable[object]]) -> File:
        """Return the uploaded file once it is kept, whole, its thread claimed before it is listed.

        Raises `Refusal` and leaves nothing of any other.
        """
        name, file_id = checked_name(upload.name or ""), uuid4().hex
        writing = await _room(lambda: self.store.create(file_id))
        try:
            size, kind, digest = await self._write(writing, upload)
            await _room(writing.keep)
            await claim()
            file = File(file_id, thread_id, user_id, name, size, kind, digest)
            await self.catalogue.add(file)
        except BaseException:
            # What is cancelled over and over is cleaned up all the same.
            with anyio.CancelScope(shield=True):
                await run_sync(self._leave_nothing, writing, file_id)
            raise
        return file

    async def of_thread(self, thread_id: str, user_id: str) -> Sequence[File]:
        """Return this user's files on the thread, oldest first."""
        return [file for file in await self.catalogue.of_thread(thread_id) if file.user_id == user_id]

    async def find(self, file_id: str, user_id: str) -> File | None:
        """Return this user's file, None where there is none."""
        file = await self.catalogue.find(file_id)
        return file if file and file.user_id == user_id else None

    async def open(self, file: File) -> AsyncIterator[bytes]:
        """Return the file's bytes, to be read as they are needed."""
        try:
            return _read(await run_sync(self.store.open, file.file_id))
        except FileNotFoundError as error:
            raise Refusal(410, "The file's bytes are gone from the store: remove it, and send it again.") from error

    async def remove(self, file: File) -> None:
        """Let there be no such file: at once for everybody, then its bytes."""
        await self.catalogue.remove(file.file_id)
        await run_sync(self.store.remove, file.file_id)

    async def sweep(self) -> None:
        """Remove what uploads and removals left in the store when their process was killed."""
        old = await run_sync(lambda: set(filter(_OUR_KEY.fullmatch, self.store.older_than(ABANDONED_S))))
        for file_id in old - await self.catalogue.known(old):
            await run_sync(self.store.remove, file_id)

    async def _write(self, writing: Writing, upload: Upload) -> tuple[int, str, str]:
        size, kind, head, digest = 0, "", b"", hashlib.sha256()
        async for data in _in_chunks(upload):
            size += len(data)
            if size > self.most_bytes:
                raise Refusal(413, f"The file is larger than {self.most_bytes:,} bytes: send a smaller one.")
            if len(head) < HEAD_BYTES:
                head += data[:HEAD_BYTES]
                kind = await checked_type(head, self.types)
            await _room(lambda data=data: (digest.update(data), writing.write(data)))
        if not size:
            raise Refusal(422, "The file is empty: send one with something in it.")
        return size, kind, digest.hexdigest()

    def _leave_nothing(self, writing: Writing, file_id: str) -> None:
        for undo in (writing.discard, lambda: self.store.remove(file_id)):
            try:
                undo()
            except Exception as error:  # noqa: BLE001 - the sweep finds it later
                logger.warning("an upload could not be cleaned up yet: %s", error)


async def open_files(engine: AsyncEngine, store: Store, most_bytes: int, types: Sequence[str]) -> Files:
    """Return the files that are catalogued in this database, with what the dead left behind removed."""
    files = Files(Catalogue(engine), store, most_bytes, types)
    await files.sweep()
    return files


async def _read(opened: BinaryIO) -> AsyncIterator[bytes]:
    with opened:
        while data := await run_sync(opened.read, CHUNK):
            yield data


async def _in_chunks(upload: Upload) -> AsyncIterator[bytes]:
    """Yield the upload's bytes in pieces that are worth a write of their own."""
    held = bytearray()
    async for data in upload:
        held += data
        if len(held) >= CHUNK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


async def _room(work: Callable[[], T]) -> T:
    """Return what the work returns, done in a thread; refuses where the store has no room left."""
    try:
        return await run_sync(work)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise Refusal(507, "The service has no room for this file: remove others, or tell its operator.") from error
        raise
