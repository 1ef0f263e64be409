"""One piece of code, one process: started, watched, ended."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from app.sandbox import calls

JAIL = Path(__file__).parent / "jail.py"
# A service that runs as root gives each folder's code a user of its own.
FIRST_USER, USERS = 200_000, 60_000
GRACE_S = 2.0


class Refused(Exception):  # noqa: N818 - named for what happened
    """The code was not run, and why."""


@dataclass(frozen=True)
class Limits:
    """What a piece of code may use: memory and file size for each process and file, time for all."""

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_bytes: int = 512 * 2**20
    processes: int = 16
    file_bytes: int = 32 * 2**20
    output_bytes: int = 64_000


@dataclass(frozen=True)
class Outcome:
    """What came of a piece of code; `killed` says by which limit it was ended, if by one."""

    output: str
    status: int
    killed: str
    cpu_s: float
    peak_bytes: int


async def run(code: str, folder: Path, limits: Limits | None = None) -> Outcome:
    """Run the code in the folder, which is all that it can write to and all that it leaves behind.

    Raises `Refused` where the system does not allow to shut it in.
    """
    limits = limits or Limits()
    if not calls.is_known():
        raise Refused("Python cannot be run here: the system calls of this machine are not known.")
    _make(folder)
    reader, writer = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="sandbox-") as root:
            try:
                process = await _start(folder, limits, root, writer)
            finally:
                os.close(writer)
            output, killed = await _watch(process, code, limits)
        report = os.read(reader, 10_000)
        told = json.loads(report) if report else _unreported(killed)
    finally:
        os.close(reader)
    if refused := told.get("refused"):
        raise Refused(f"Python cannot be run here: {refused}.")
    killed = killed or _by_the_system(told, limits)
    return Outcome(output, told["status"], killed, round(told["cpu_s"], 3), told["peak_bytes"])


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, _user(folder), _user(folder))


def _user(folder: Path) -> int:
    return FIRST_USER + crc32(str(folder.absolute()).encode()) % USERS


async def _start(folder: Path, limits: Limits, root: str, report: int) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(JAIL), _order(folder, limits, root, report)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        env={},
        cwd="/",
        pass_fds=(report,),
        start_new_session=True,
    )


def _order(folder: Path, limits: Limits, root: str, report: int) -> str:
    order = {
        **limits.__dict__,
        "folder": str(folder.absolute()),
        "root": root,
        "python": os.path.realpath(sys.executable),
        "prefix": os.path.realpath(sys.base_prefix),
        "user": _user(folder),
        "calls": calls.program().hex(),
        "report": report,
    }
    return json.dumps(order)


async def _watch(process: Process, code: str, limits: Limits) -> tuple[str, str]:
    output, killed = bytearray(), ""
    try:
        async with asyncio.timeout(limits.wall_s):
            await _feed(process, code)
            killed = await _read(process, output, limits.output_bytes)
            if not killed:
                await process.wait()
    except TimeoutError:
        killed = "wall time"
    finally:
        await _end(process)
    return output[: limits.output_bytes].decode(errors="replace"), killed


async def _feed(process: Process, code: str) -> None:
    assert process.stdin  # noqa: S101 - asked for
    with suppress(ConnectionError):
        process.stdin.write(code.encode(errors="replace"))
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: Process, output: bytearray, most: int) -> str:
    assert process.stdout  # noqa: S101 - asked for
    while chunk := await process.stdout.read(65_536):
        output += chunk
        if len(output) > most:
            return "output"
    return ""


async def _end(process: Process) -> None:
    """The supervisor ends the code, and itself; once more by force, should it hang."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), GRACE_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    await _drain(process)


async def _drain(process: Process) -> None:
    """Read what a dead process had written: a pipe with something in it would stay open."""
    assert process.stdout  # noqa: S101 - asked for
    with suppress(TimeoutError):
        await asyncio.wait_for(process.stdout.read(), GRACE_S)


def _unreported(killed: str) -> dict:
    """Return what stands for the word of a supervisor that was ended by force, or never began."""
    if killed:
        return {"status": -signal.SIGKILL, "cpu_s": 0.0, "peak_bytes": 0}
    return {"refused": "it could not be started"}


def _by_the_system(told: dict, limits: Limits) -> str:
    if told["status"] >= 0:
        return ""
    if told["cpu_s"] >= limits.cpu_s - 0.5:
        return "cpu time"
    return f"signal {-told['status']}"
