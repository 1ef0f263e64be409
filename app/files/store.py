"""Stores for the bytes of files: a folder, or anything that fsspec reaches."""

import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

logger = logging.getLogger(__name__)

# The size of a request to a bucket, which an upload keeps in memory.
BLOCK_BYTES = 8 * 1024 * 1024


class Writing(Protocol):
    """A write to a store; its bytes can be read once they are committed."""

    def write(self, data: bytes) -> object:
        """Write more bytes."""

    def commit(self) -> None:
        """Make the bytes readable under their key."""

    def discard(self) -> None:
        """Delete the bytes."""


class Store(Protocol):
    """Bytes under keys that the service creates."""

    def create(self, key: str) -> Writing:
        """Return a write under this key."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Return the bytes as a file."""
        ...

    def delete(self, key: str) -> None:
        """Delete what is stored under this key, if anything is."""

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the keys of all entries that have not changed for this time, committed or not."""
        ...


def make_private(folder: Path) -> None:
    """Create the folder if there is none, accessible to its owner only, whatever the umask is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = folder.stat().st_mode
    # The mode of a shared folder, such as /tmp, is not changed.
    if stat.S_IMODE(mode) != 0o700 and not mode & stat.S_ISVTX:
        try:
            folder.chmod(0o700)
        except PermissionError:
            logger.warning("%s belongs to another user, who may be able to read conversations and files", folder)


class Folder:
    """A store in a folder of this machine."""

    def __init__(self, path: Path) -> None:
        make_private(path)
        self._path = path

    def create(self, key: str) -> Writing:
        """Return a write to a `.part` file, which is renamed when it is committed."""
        return _PartFile(self._path / key)

    def open(self, key: str) -> BinaryIO:
        """Return the open file."""
        return (self._path / key).open("rb")

    def delete(self, key: str) -> None:
        """Delete the file, committed or not."""
        (self._path / key).unlink(missing_ok=True)
        _part(self._path / key).unlink(missing_ok=True)

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the keys of the old ones."""
        for entry in os.scandir(self._path):
            with suppress(FileNotFoundError):
                if entry.stat().st_mtime < time.time() - seconds:
                    yield Path(entry.name).stem


class _PartFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.fdopen(os.open(_part(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)

    def write(self, data: bytes) -> object:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        return None

    def commit(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        _part(self._path).rename(self._path)

    def discard(self) -> None:
        self._file.close()
        _part(self._path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_suffix(".part")


class Bucket:
    """A store at an address such as s3://bucket/prefix; credentials and endpoint are the environment's."""

    def __init__(self, url: str) -> None:
        import fsspec  # installed with the driver of the address, where there is one

        self._files, self._root = fsspec.core.url_to_fs(url)

    def create(self, key: str) -> Writing:
        """Return an upload that the bucket shows once it is complete."""
        return _Object(self._files.open(self._path(key), "wb", block_size=BLOCK_BYTES, autocommit=False))

    def open(self, key: str) -> BinaryIO:
        """Return the object's bytes."""
        return cast("BinaryIO", self._files.open(self._path(key), "rb", block_size=BLOCK_BYTES, cache_type="readahead"))

    def delete(self, key: str) -> None:
        """Delete the object."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the keys of the old ones; the bucket itself deletes unfinished uploads."""
        self._files.invalidate_cache()
        with suppress(FileNotFoundError):
            for path in self._files.ls(self._root, detail=False):
                if self._files.modified(path).timestamp() < time.time() - seconds:
                    yield str(path).rpartition("/")[2]

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


class _Object:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> object:
        return self._file.write(data)

    def commit(self) -> None:
        self._file.close()
        self._file.commit()

    def discard(self) -> None:
        self._file.discard()


def open_store(url: str | None, folder: Path) -> Store:
    """Return the store at this address, or in this folder if there is no address."""
    return Bucket(url) if url else Folder(folder)
