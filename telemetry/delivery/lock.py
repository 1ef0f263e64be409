"""Locks of the spool's files, released when their process ends, however that happens, so that others take over."""

import logging
import os
import stat
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # without file locks no file can be taken over: such a system spools to memory
    fcntl = None

logger = logging.getLogger(__name__)

_MARKS = struct.Struct("<QQ")
# SQLite's largest row id: a larger mark is damaged.
_MAX_MARK = 2**63 - 1


class LockedError(Exception):
    """Another living process holds the lock."""


def open_locked(path: Path) -> int:
    """Return a descriptor of the locked file, created if missing; raise `LockedError` if it is already locked."""
    if fcntl is None:
        raise OSError("there are no file locks on this system")
    # Follow no link, and do not wait at a pipe for its other end.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")  # noqa: TRY301 - the descriptor is closed below
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking it, its last owner may have removed it.
        locked = path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
    except BlockingIOError:
        locked = False
    except BaseException:
        os.close(descriptor)
        raise
    if not locked:
        os.close(descriptor)
        raise LockedError(path)
    return descriptor


class SpoolLock:
    """The lock of one spool file.

    It holds two marks that outlive a SIGKILL without a write to the database: how many rows were committed, and up to
    which row the backend has accepted them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_locked(path)
        try:
            marks = os.pread(self._descriptor, _MARKS.size, 0)
        except BaseException:
            os.close(self._descriptor)
            raise
        # A lock without marks is new, or replaces one that was removed.
        self.is_new = not marks
        self._committed, self._accepted = _MARKS.unpack(marks.ljust(_MARKS.size, b"\0"))
        if self._committed > _MAX_MARK or self._accepted > self._committed:
            # Which rows were accepted is unknown then: a duplicate is better than a loss.
            logger.error("the marks in %s are damaged: spans that were already accepted may be sent again", path)
            self._committed = self._accepted = 0
        self._write_marks()

    @property
    def database(self) -> Path:
        """The spool file that it locks."""
        return self.path.with_suffix(".db")

    @property
    def committed(self) -> int:
        """How many rows were committed to the file."""
        return self._committed

    @committed.setter
    def committed(self, count: int) -> None:
        self._committed = count
        self._write_marks()

    @property
    def accepted(self) -> int:
        """The row up to which the backend has accepted all rows."""
        return self._accepted

    @accepted.setter
    def accepted(self, seq: int) -> None:
        self._accepted = seq
        self._write_marks()

    def _write_marks(self) -> None:
        # Both at once, and not through mapped memory: truncating the file must not kill its owner. Existing bytes can
        # be overwritten even on a full disk.
        with suppress(OSError):
            os.pwrite(self._descriptor, _MARKS.pack(self._committed, self._accepted), 0)

    def release(self) -> None:
        """Let others take over the file. If a forked child releases its copy, the parent keeps the lock."""
        os.close(self._descriptor)

    def remove_files(self) -> None:
        """Remove the spool file, its lock last, so that no file is without one."""
        for path in (f"{self.database}-wal", f"{self.database}-shm", self.database, self.path):
            Path(path).unlink(missing_ok=True)


class MemoryMarks:
    """The marks of a spool in memory, which no other process can take over."""

    def __init__(self) -> None:
        self.committed = 0
        self.accepted = 0


def orphaned_locks(
    directory: Path,
    destination: str,
    *,
    skip: Collection[Path] = (),
    on_error: Callable[[Path, OSError], None] = lambda _, __: None,
) -> Iterator[SpoolLock]:
    """Yield the locks of files for this destination whose owners are dead; the caller must release them.

    A file whose lock is missing gets a new one. `on_error` is called for a lock that cannot be opened.
    """
    files = [path.with_suffix(".lock") for path in directory.glob(f"{destination}-*.db")]
    for path in sorted({*directory.glob(f"{destination}-*.lock"), *files}.difference(skip)):
        try:
            lock = SpoolLock(path)
        except LockedError:
            continue
        except OSError as error:
            on_error(path, error)
            continue
        yield lock


def read_accepted(lock: Path) -> int:
    """Return the mark of a file that another process may own: the row up to which all rows were accepted."""
    if not lock.is_file():
        raise OSError(f"{lock} is not a regular file")  # opening a pipe would wait for its other end
    try:
        committed, accepted = _MARKS.unpack_from(lock.read_bytes())
    except struct.error as error:
        raise OSError(f"{lock} has no marks") from error
    return accepted if accepted <= committed <= _MAX_MARK else 0
