"""The right to a spool file: it ends with the process whatever ends it, so that others may adopt the file."""

import logging
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no file locks, no adoption: such a system spools to memory
    fcntl = None

logger = logging.getLogger(__name__)

_MARKS = struct.Struct("<QQ")


class TakenError(Exception):
    """The owner of the file is alive."""


class Claim:
    """The right to one spool file, which ends with the process whatever ends it.

    It holds two marks that outlive a SIGKILL without a write to the database: how many rows were committed, and up to
    which row the backend has accepted them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            # Written, not truncated to size: on a full disk a mapped hole would kill the process.
            os.pwrite(self._fd, bytes(max(0, _MARKS.size - os.fstat(self._fd).st_size)), os.fstat(self._fd).st_size)
            self._marks = mmap.mmap(self._fd, _MARKS.size)
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        if fcntl is None:
            raise OSError("there are no file locks on this system")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TakenError(self.path) from None
        # Between opening and locking it, its last owner may have removed it.
        if not self.path.exists() or not os.path.samestat(os.fstat(self._fd), self.path.stat()):
            raise TakenError(self.path)

    @property
    def committed(self) -> int:
        """How many rows were committed to the file."""
        return _MARKS.unpack_from(self._marks)[0]

    @committed.setter
    def committed(self, count: int) -> None:
        struct.pack_into("<Q", self._marks, 0, count)

    @property
    def accepted(self) -> int:
        """The row up to which the backend has accepted all that waited."""
        return _MARKS.unpack_from(self._marks)[1]

    @accepted.setter
    def accepted(self, seq: int) -> None:
        struct.pack_into("<Q", self._marks, 8, seq)

    def give_up(self) -> None:
        """Let others have the file. In a forked child, whose copy it is, the parent's claim stays."""
        self._marks.close()
        os.close(self._fd)

    def set_aside(self) -> None:
        """Rename the file to .corrupt and let go of it; a person may look into it."""
        database = self.path.with_suffix(".db")
        logger.error("the spool file %s cannot be read: it is set aside as %s.corrupt", database, database.stem)
        for end in ("", "-wal"):
            with suppress(FileNotFoundError):
                Path(f"{database}{end}").rename(f"{database.with_suffix('.corrupt')}{end}")
        self.remove()
        self.give_up()

    def remove(self) -> None:
        """Remove the file, its lock last, so that no file is without one."""
        database = self.path.with_suffix(".db")
        for path in (f"{database}-wal", f"{database}-shm", database, self.path):
            Path(path).unlink(missing_ok=True)


class NoClaim:
    """The marks of a spool in memory, which nobody can adopt."""

    def __init__(self) -> None:
        self.committed = 0
        self.accepted = 0


def adoptable(directory: Path, destination: str) -> Iterator[Claim]:
    """Yield the claims of files for this destination whose owners are dead; who takes one must let go of it."""
    for path in sorted(directory.glob(f"{destination}-*.lock")):
        with suppress(TakenError, OSError):
            yield Claim(path)


def accepted_in(lock: Path) -> int:
    """Return the mark of a file that somebody else may own: the row up to which all was accepted."""
    try:
        return _MARKS.unpack_from(lock.read_bytes())[1]
    except struct.error as error:
        raise OSError(f"{lock} has no marks") from error
