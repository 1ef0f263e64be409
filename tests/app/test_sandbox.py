"""A corpus of escapes: each fails cleanly, and whoever ran it goes on."""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.sandbox import Limits, Outcome, run
from app.sandbox.calls import FORBIDDEN, MACHINES
from app.sandbox.run import JAIL, _make, _order

QUICK = Limits(wall_s=3, cpu_s=1)
# On a busy machine a second of CPU time takes its time.
PATIENT = Limits(wall_s=60, cpu_s=1)
SECRET = "a-secret-of-the-service"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICE_KEY", SECRET)
    (tmp_path / "neighbour").write_text(SECRET)
    return tmp_path / "thread"


async def attempt(code: str, folder: Path, limits: Limits = PATIENT) -> Outcome:
    outcome = await run(code, folder, limits)
    assert SECRET not in outcome.output
    return outcome


READS = {
    "environment": "import os; print(dict(os.environ)); assert not set(os.environ) - {'LC_CTYPE'}; 1/0",
    "environment of the parent": "import os; print(open(f'/proc/{os.getppid()}/environ').read())",
    "memory of the parent": "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
    "a file of the system": "print(open('/etc/passwd').read())",
    "the neighbouring folder": "print(open('../neighbour').read())",
    "through a link": "import os; os.symlink('{outside}', 'link'); print(open('link').read())",
    "by its whole name": "print(open('{outside}').read())",
    "the same, to write": "open('{outside}', 'w')",
    "the disk": "import os; os.mknod('disk', 0o60600, os.makedev(254, 0))",
    "the interpreter, to write": "import os; open(os.__file__, 'a')",
    "a mount": "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, b'') == 0",
    "another root": "import os; os.chroot('/tmp')",
    "another user": "import os; os.setuid(0)",
    "the first process, as its debugger": "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
}


@pytest.mark.parametrize("name", READS)
async def test_nothing_outside_can_be_read_or_changed(folder: Path, name: str) -> None:
    """Neither the environment nor files nor privileges of the service are within reach."""
    outcome = await attempt(READS[name].replace("{outside}", str(folder.parent / "neighbour")), folder)

    assert (outcome.status, outcome.killed) == (1, "")


async def test_no_network(folder: Path) -> None:
    """Not even a server on this machine can be reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = await attempt(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)", folder)

    assert outcome.status == 1
    assert "unreachable" in outcome.output


async def test_no_socket_by_name(folder: Path) -> None:
    """A server on this machine that listens under a name is not found either."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name := f"\0sandbox-test-{os.getpid()}")
        server.listen()
        outcome = await attempt(f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})", folder)

    assert "Connection refused" in outcome.output


async def test_no_way_to_the_host(folder: Path) -> None:
    """Networks that know no namespaces, as that between a virtual machine and its host, are not there."""
    code = "import socket\nfor family in (socket.AF_VSOCK, socket.AF_NETLINK, socket.AF_PACKET):\n"
    code += "    try: print(socket.socket(family, socket.SOCK_STREAM))\n    except OSError as error: print(error.errno)"

    assert (await attempt(code, folder)).output == "97\n97\n97\n"


HERE = MACHINES.index(os.uname().machine)
CALL = "import ctypes\ncall = ctypes.CDLL(None, use_errno=True).syscall\n"


async def test_the_services_keys_are_not_in_reach(folder: Path) -> None:
    """What the service keeps in its keyring, which processes inherit, stays there."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    add, keyctl = (FORBIDDEN[name][HERE] for name in ("add_key", "keyctl"))
    if call(keyctl, 1, 0) < 0 or call(add, b"user", b"service", SECRET.encode(), len(SECRET), -3) < 0:
        pytest.skip("this system has no keyrings")
    code = f"{CALL}key = call({keyctl}, 10, -3, b'user', b'service', 0)\nheld = ctypes.create_string_buffer(99)\n"
    outcome = await attempt(code + f"print(key, call({keyctl}, 11, key, held, 99, 0), held.value)", folder)

    assert outcome.output == "-1 -1 b''\n"


async def test_forbidden_system_calls(folder: Path) -> None:
    """What would lead out of the namespaces or the limits is not permitted, also by the calls' second table."""
    numbers = [numbers[HERE] for numbers in FORBIDDEN.values()] + [0x40000000]
    code = f"{CALL}print({{(call(n, 0, 0, 0, 0, 0), ctypes.get_errno()) for n in {numbers}}})"

    assert (await attempt(code, folder)).output == "{(-1, 1)}\n"


async def test_ordinary_things_work(folder: Path) -> None:
    """Threads, processes, pipes and sockets of its own are the code's to use."""
    code = "import asyncio, subprocess, threading\nthread = threading.Thread(target=print, args=('thread',))\n"
    code += "thread.start(); thread.join()\nprint(asyncio.run(asyncio.sleep(0, 'loop')), flush=True)\n"
    code += "done = subprocess.run(['/bin/echo', '42'], check=True)"
    outcome = await attempt(code, folder)

    assert outcome.output.splitlines() == ["thread", "loop", "42"]


async def test_no_signal_reaches_the_service(folder: Path) -> None:
    """Whom it signals, it finds nobody but itself."""
    code = "import os, signal\nfor who in (os.getppid(), 1, {pid}):\n    try: os.kill(who, signal.SIGKILL)\n"
    code += "    except OSError as error: print(error)\nprint('done')"
    outcome = await attempt(code.replace("{pid}", str(os.getpid())), folder)

    assert "No such process" in outcome.output


BOMBS = {
    "fork": ("import os\nwhile True: os.fork()", ""),
    "threads": (
        "import threading, time\nfor n in range(99): threading.Thread(target=time.sleep, args=(9,)).start()",
        "wall time",
    ),
    "memory": ("x = bytearray(10**10)", ""),
    "memory in steps": ("x = []\nwhile True: x.append(bytearray(10**7))", ""),
    "a large file": ("with open('f', 'wb') as f:\n    while True: f.write(bytes(10**6))", ""),
    "a full /tmp": ("for n in range(99): open(f'/tmp/{n}', 'wb').write(bytes(10**6))", ""),
    "many open files": ("fs = [open('/dev/null') for n in range(999)]", ""),
    "endless output": ("while True: print('x' * 1000)", "output"),
    "busy": ("while True: pass", "cpu time"),
    "idle": ("import time; time.sleep(99)", "wall time"),
    "silent and idle": ("import os, time; os.close(1); os.close(2); time.sleep(99)", "wall time"),
    "deaf": ("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)", "wall time"),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "signal 11"),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_ends_by_itself_or_by_a_limit(folder: Path, name: str) -> None:
    """Whatever it uses without end is ended, with the limit's name where a limit ended it; no process is left."""
    code, killed = BOMBS[name]
    outcome = await attempt(code, folder, QUICK if killed == "wall time" else PATIENT)

    assert (outcome.status != 0, outcome.killed) == (True, killed)
    assert len(outcome.output) <= QUICK.output_bytes
    assert _left(folder) == []


async def test_a_limit_is_told_though_the_supervisor_was_late(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody waited for its report the code was ended all the same, by the limit, and was not refused."""
    monkeypatch.setitem(run.__globals__, "GRACE_S", 0)
    outcome = await attempt("import time; time.sleep(99)", folder, Limits(wall_s=1, cpu_s=1))

    assert (outcome.status, outcome.killed) == (-signal.SIGKILL, "wall time")
    assert _left(folder) == []


async def test_a_child_that_was_left_behind_dies(folder: Path) -> None:
    """What forks itself away ends with the code that started it."""
    code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.close(1); os.close(2)\n    time.sleep(99)"
    outcome = await attempt(code, folder)

    assert (outcome.status, outcome.killed) == (0, "")
    assert _left(folder) == []


EARLY = """
import os, runpy, signal, time
fork = os.fork
def forked():
    child = fork()
    os.kill(os.getpid(), signal.SIGTERM) if child else time.sleep(0.2)
    return child
os.fork = forked
runpy.run_path({jail!r}, run_name="__main__")
"""


def test_the_code_dies_with_its_supervisor(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever ends the supervisor, as the end of the service does, ends the code too, whoever it runs as."""
    _make(folder)
    reader, writer = os.pipe()
    order = _order(folder, PATIENT, str(tmp_path_factory.mktemp("root")), writer)
    command = [sys.executable, "-I", "-S", str(JAIL), order]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, pass_fds=(writer,)) as jail:
        assert jail.stdin
        assert jail.stdout
        jail.stdin.write(b"import time; print('begun', flush=True); time.sleep(120)")
        jail.stdin.close()
        assert jail.stdout.readline() == b"begun\n"
        jail.kill()

        assert select.select([jail.stdout], [], [], 60)[0], "somebody could still write"
        assert jail.stdout.read() == b""
    os.close(writer)
    os.close(reader)


def test_a_signal_at_the_very_start_ends_the_code_as_well(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A SIGTERM that the supervisor gets as soon as there is a child ends both, and is reported."""
    folder.mkdir()
    reader, writer = os.pipe()
    order = _order(folder, PATIENT, str(tmp_path_factory.mktemp("root")), writer)
    command = [sys.executable, "-I", "-S", "-c", EARLY.format(jail=str(JAIL)), order]
    jail = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, pass_fds=(writer,), start_new_session=True
    )
    os.close(writer)
    jail.communicate(b"import time; time.sleep(120)", timeout=60)  # to the end of whoever could write

    assert json.loads(os.read(reader, 10_000))["status"] == -signal.SIGKILL
    assert jail.returncode == 0
    os.close(reader)


async def test_it_says_what_was_used(folder: Path) -> None:
    """CPU time and peak memory are measured."""
    outcome = await attempt("x = bytearray(100_000_000)\nsum(range(3_000_000))", folder)

    assert outcome.output == "4499998500000\n"
    assert outcome.cpu_s > 0.02
    assert outcome.peak_bytes > 100_000_000


async def test_only_files_remain(folder: Path) -> None:
    """Names are gone with the process, files of the thread's folder stay, those in /tmp do not."""
    await attempt("x = 1; open('kept', 'w').write('y'); open('/tmp/gone', 'w').write('z')", folder)
    outcome = await attempt("import os; print(open('kept').read(), os.listdir('/tmp'), 'x' in globals())", folder)

    assert outcome.output == "y [] False\n"


def _left(folder: Path) -> list[str]:
    """Processes that hold the folder as their own; the sandbox's own name is the folder's."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(words.decode(errors="replace"))
    return found
