"""Start, supervise and end one sandbox for one piece of code."""

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import NamedTuple
from zlib import crc32

from app.sandbox import seccomp
from app.sandbox.first_process import BEGUN

logger = logging.getLogger(__name__)

FIRST_PROCESS = (Path(__file__).parent / "first_process.py").read_text()
# If memory runs out, the sandbox is killed first.
FIRST_TO_GO = ("/bin/sh", "-c", '{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null; exec "$@"', "sh")
# A service that runs as root runs the code of each folder as a separate user.
FIRST_USER, USERS = 200_000, 60_000
# In a user namespace there is only one user, which does not see who it is outside.
INSIDE = "1000"
GRACE_S = 2.0


class Refused(Exception):  # noqa: N818 - named for what happened
    """The code was not run; the message says why."""


@dataclass(frozen=True)
class Limits:
    """The limits of a piece of code: memory per process, size per file, time in total."""

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_bytes: int = 512 * 2**20
    processes: int = 16
    file_bytes: int = 32 * 2**20
    output_bytes: int = 64_000


@dataclass(frozen=True)
class Outcome:
    """The outcome of a piece of code; `killed` names the limit that ended it, if any."""

    output: str
    status: int
    killed: str
    cpu_s: float
    peak_bytes: int


class _End(NamedTuple):
    """The status of a sandbox and its resource usage; a negative status is the signal that ended the code."""

    status: int
    cpu_s: float
    peak_bytes: int


async def run(code: str, folder: Path, limits: Limits | None = None) -> Outcome:
    """Run the code in the folder, the only place that it can write to permanently.

    Raises `Refused` if the system does not allow the isolation.
    """
    limits = limits or Limits()
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise Refused("Python cannot be run here: bubblewrap is not installed (apt install bubblewrap).")
    if not seccomp.is_known():
        raise Refused("Python cannot be run here: the system calls of this processor are not known.")
    process = _start(bwrap, code.encode(errors="replace"), folder, limits)
    output, killed, end = await _watch(process, limits)
    complaint, begun, printed = output.partition(BEGUN)
    if not killed and not begun:
        logger.warning("bubblewrap could not isolate a piece of Python: %s", complaint.decode(errors="replace").strip())
        raise Refused(
            "Python cannot be run here: bubblewrap could not isolate it, see the log; "
            "if user namespaces are forbidden, allow them (docs/python-repl.md)."
        )
    words = printed[: limits.output_bytes].decode(errors="replace")
    return Outcome(words, end.status, killed or _by_the_system(end, limits), round(end.cpu_s, 3), end.peak_bytes)


def _start(bwrap: str, code: bytes, folder: Path, limits: Limits) -> Popen[bytes]:
    user = _own_user(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user:
        os.chown(folder, user, user)
    with ExitStack() as opened:
        code_fd, filter_fd = (opened.enter_context(_in_memory(content)) for content in (code, seccomp.program()))
        numbers = (code_fd, limits.cpu_s, limits.memory_bytes, limits.processes, limits.file_bytes, user or 0)
        sandbox = (*FIRST_TO_GO, bwrap, "--seccomp", str(filter_fd), *_isolation(user), *_files(folder, limits), "--")
        python = (os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", FIRST_PROCESS, *map(str, numbers))
        return Popen(  # noqa: S603 - no shell reads the arguments
            (*sandbox, *python),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env={},
            cwd="/",
            pass_fds=(code_fd, filter_fd),
            start_new_session=True,
        )


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Yield the descriptor of a file in memory."""
    with os.fdopen(os.memfd_create("sandbox"), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def _own_user(folder: Path) -> int | None:
    """Return the user as which root runs the code of this folder; None if it cannot become another user."""
    user = FIRST_USER + crc32(str(folder.absolute()).encode()) % USERS
    if os.geteuid() != 0:
        return None
    ranges = (map(int, line.split()) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return user if any(first <= user < first + count for first, _, count in ranges) else None


def _isolation(user: int | None) -> Sequence[str]:
    """Return the options that isolate the code and remove its privileges.

    The kernel does not limit the processes of root, even in a user namespace: if the service is root, the code becomes
    another user instead, whose processes the first process may kill.
    """
    common = ("--die-with-parent", "--as-pid-1", "--cap-drop", "ALL")
    if user is None:
        return (*common, "--unshare-all", "--unshare-user", "--uid", INSIDE, "--gid", INSIDE)
    namespaces = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
    privileges = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_KILL")
    return (*common, *namespaces, *privileges)


def _files(folder: Path, limits: Limits) -> Iterator[str]:
    """Yield the options for the files of the code: the interpreter read-only, one folder and a small /tmp writable."""
    for place in map(Path, ("/usr", "/lib", "/lib64", "/bin")):
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            yield from ("--ro-bind", str(place), str(place))
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/usr"):
        # Folders that bubblewrap creates implicitly would be accessible to root only.
        for parent in reversed(prefix.parents[:-1]):
            yield from ("--dir", str(parent))
        yield from ("--ro-bind", str(prefix), str(prefix))
    yield from ("--dir", "/dev")
    for device in ("/dev/null", "/dev/urandom"):
        yield from ("--dev-bind", device, device)
    yield from ("--perms", "1777", "--size", str(limits.file_bytes), "--tmpfs", "/tmp")  # noqa: S108 - a separate one in the sandbox
    yield from ("--bind", str(folder.absolute()), "/work")
    yield from ("--remount-ro", "/")


async def _watch(process: Popen[bytes], limits: Limits) -> tuple[bytes, str, _End]:
    """Return the output, the limit that ended the sandbox, and its end; a cancellation ends the sandbox as well."""
    assert process.stdin  # noqa: S101 - asked for
    assert process.stdout  # noqa: S101 - asked for
    loop, printed = asyncio.get_running_loop(), process.stdout.fileno()
    output, killed, done = bytearray(), "", asyncio.Event()

    def take() -> None:
        chunk = os.read(printed, 65_536)
        output.extend(chunk)
        if not chunk or len(output) > limits.output_bytes + len(BEGUN):
            loop.remove_reader(printed)
            done.set()

    loop.add_reader(printed, take)
    try:
        async with asyncio.timeout(limits.wall_s):
            await done.wait()
    except TimeoutError:
        killed = "wall time"
    finally:
        loop.remove_reader(printed)
        process.stdin.close()
        # A separate task, which ends the sandbox even if the caller is cancelled again and does not wait.
        end = await asyncio.shield(loop.create_task(_end(process)))
    if len(output) > limits.output_bytes + len(BEGUN):
        killed = "output"
    return bytes(output), killed, end


async def _end(process: Popen[bytes]) -> _End:
    """Wait for the end of a sandbox that was told to end; kill it if it hangs."""
    assert process.stdout  # noqa: S101 - asked for
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), GRACE_S)
    except TimeoutError:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.stdout.close()
    # Not with asyncio's own method, which does not return the resource usage.
    _, status, used = os.wait4(process.pid, 0)  # noqa: ASYNC222 - it has ended
    process.returncode = os.waitstatus_to_exitcode(status)
    # If a signal has ended the code, bubblewrap exits with 128 plus its number, like a shell.
    code_status = process.returncode if process.returncode <= 128 else 128 - process.returncode
    return _End(code_status, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _by_the_system(end: _End, limits: Limits) -> str:
    if end.status >= 0:
        return ""
    return "cpu time" if end.cpu_s >= limits.cpu_s - 0.5 else f"signal {-end.status}"
