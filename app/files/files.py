"""Store, read and delete files: their bytes and their metadata together."""

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

from app.files.catalogue import Catalogue, File
from app.files.content import HEAD_BYTES, Refusal, check_name, check_type
from app.files.store import Store, Writing
from app.files.upload import Upload

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK_BYTES = 1024 * 1024
# After this time without a change, an upload counts as abandoned.
ABANDONED_S = 3600
# Other keys in the store are not ours.
_OUR_KEY = re.compile(r"[0-9a-f]{32}")
_STORE_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Files:
    """The files of all threads; a file exists only while the catalogue lists it."""

    catalogue: Catalogue
    store: Store
    max_bytes: int
    types: Sequence[str]

    async def save(
        self, upload: Upload, thread_id: str, user_id: str, create_thread: Callable[[], Awaitable[object]]
    ) -> File:
        """Store the uploaded file and return it; its thread is created before it is listed.

        Raises `Refusal` for a file that is refused, of which nothing is stored.
        """
        name, file_id = check_name(upload.name or ""), uuid4().hex
        writing = await _run_in_thread(lambda: self.store.create(file_id))
        try:
            size, media_type, digest = await self._write(writing, upload)
            await _run_in_thread(writing.commit)
            await create_thread()
            file = File(file_id, thread_id, user_id, name, size, media_type, digest)
            await self.catalogue.add(file)
        except BaseException:
            # A request may be cancelled more than once, and the clean-up has to finish nevertheless.
            with anyio.CancelScope(shield=True):
                await run_sync(self._clean_up, writing, file_id)
            raise
        return file

    async def of_thread(self, thread_id: str, user_id: str) -> Sequence[File]:
        """Return this user's files on the thread, oldest first."""
        return [file for file in await self.catalogue.of_thread(thread_id) if file.user_id == user_id]

    async def find(self, file_id: str, user_id: str) -> File | None:
        """Return this user's file, None if there is none."""
        file = await self.catalogue.find(file_id)
        return file if file and file.user_id == user_id else None

    async def open(self, file: File) -> AsyncIterator[bytes]:
        """Return the file's bytes as an open file."""
        try:
            return _read(await run_sync(self.store.open, file.file_id))
        except FileNotFoundError as error:
            raise Refusal(
                410, "The file's content is missing from the store: delete the file, and send it again."
            ) from error

    async def delete(self, file: File) -> None:
        """Delete the file: first its metadata, so that it can no longer be found, then its bytes."""
        await self.catalogue.delete(file.file_id)
        await run_sync(self.store.delete, file.file_id)

    async def sweep(self) -> None:
        """Delete what uploads and deletions left in the store when their process was killed."""
        old = await run_sync(lambda: set(filter(_OUR_KEY.fullmatch, self.store.older_than(ABANDONED_S))))
        for file_id in old - await self.catalogue.existing(old):
            await run_sync(self.store.delete, file_id)

    async def _write(self, writing: Writing, upload: Upload) -> tuple[int, str, str]:
        size, media_type, head, digest = 0, "", b"", hashlib.sha256()
        async for data in _in_chunks(upload):
            size += len(data)
            if size > self.max_bytes:
                raise Refusal(413, f"The file is larger than {self.max_bytes:,} bytes: send a smaller one.")
            if len(head) < HEAD_BYTES:
                head += data[:HEAD_BYTES]
                media_type = await check_type(head, self.types)
            await _run_in_thread(lambda data=data: (digest.update(data), writing.write(data)))
        if not size:
            raise Refusal(422, "The file is empty: send one with content.")
        return size, media_type, digest.hexdigest()

    def _clean_up(self, writing: Writing, file_id: str) -> None:
        for undo in (writing.discard, lambda: self.store.delete(file_id)):
            try:
                undo()
            except Exception as error:  # noqa: BLE001 - the sweep finds it later
                logger.warning("an upload could not be cleaned up yet: %s", error)


async def _read(opened: BinaryIO) -> AsyncIterator[bytes]:
    with opened:
        while data := await run_sync(opened.read, CHUNK_BYTES):
            yield data


async def _in_chunks(upload: Upload) -> AsyncIterator[bytes]:
    """Yield the upload's bytes in chunks that are large enough to write one by one."""
    buffer = bytearray()
    async for data in upload:
        buffer += data
        if len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


async def _run_in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and return its result; refuse the file if the store is full."""
    try:
        return await run_sync(work)
    except OSError as error:
        if error.errno in _STORE_IS_FULL:
            raise Refusal(
                507, "The service has no space for this file: delete other files, or contact the operator."
            ) from error
        raise
