"""Where the bytes of files are: a folder, or anything that fsspec reaches."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

# One request to a bucket; also what is held in memory of an upload.
BLOCK = 8 * 1024 * 1024


class Writing(Protocol):
    """Bytes on their way into a store; nobody finds them before they are kept."""

    def write(self, data: bytes) -> object:
        """Take more bytes."""

    def keep(self) -> None:
        """Make them what is found under their key."""

    def discard(self) -> None:
        """Leave nothing of them."""


class Store(Protocol):
    """Bytes under keys of the service's own making."""

    def create(self, key: str) -> Writing:
        """Return a place for bytes that are to be found under this key."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Return the bytes, to be read once."""
        ...

    def remove(self, key: str) -> None:
        """Leave nothing under this key, if there was anything."""

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the keys of all that has not changed for so long, finished or not."""
        ...


class Folder:
    """A store in a folder of this machine."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path

    def create(self, key: str) -> Writing:
        """Return a file beside the others, under a name that only a finished one loses."""
        return _PartFile(self._path / key)

    def open(self, key: str) -> BinaryIO:
        """Return the open file."""
        return (self._path / key).open("rb")

    def remove(self, key: str) -> None:
        """Remove the file, finished or not."""
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

    def keep(self) -> None:
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
        """Return an upload that the bucket shows when it is complete."""
        return _Object(self._files.open(self._at(key), "wb", block_size=BLOCK, autocommit=False))

    def open(self, key: str) -> BinaryIO:
        """Return the object's bytes."""
        return cast("BinaryIO", self._files.open(self._at(key), "rb", block_size=BLOCK, cache_type="readahead"))

    def remove(self, key: str) -> None:
        """Remove the object."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._at(key))

    def older_than(self, seconds: float) -> Iterator[str]:
        """Yield the keys of the old ones; the bucket itself forgets unfinished uploads."""
        self._files.invalidate_cache()
        with suppress(FileNotFoundError):
            for path in self._files.ls(self._root, detail=False):
                if self._files.modified(path).timestamp() < time.time() - seconds:
                    yield str(path).rpartition("/")[2]

    def _at(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


class _Object:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> object:
        return self._file.write(data)

    def keep(self) -> None:
        self._file.close()
        self._file.commit()

    def discard(self) -> None:
        self._file.discard()


def open_store(url: str | None, folder: Path) -> Store:
    """Return the store at this address, or the one in this folder where there is no address."""
    return Bucket(url) if url else Folder(folder)
