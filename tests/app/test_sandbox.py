"""A corpus of escapes: each fails cleanly, and whoever ran it goes on."""

import asyncio
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import app.sandbox
from app.sandbox import Limits, Outcome, Refused, run
from app.sandbox.seccomp import FORBIDDEN, MACHINES
from tests.parts import missing
from tests.processes import until

QUICK = Limits(wall_s=3, cpu_s=1)
# On a busy machine a second of CPU time takes its time.
PATIENT = Limits(wall_s=60, cpu_s=1)
# And filling half a gigabyte may cost more than a second of it.
ROOMY = Limits(wall_s=60, cpu_s=30)
BY_LIMIT = {"wall time": QUICK, "cpu time": PATIENT}
SECRET = "a-secret-of-the-service"


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        missing("bubblewrap", "apt-get install bubblewrap")


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
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()

    assert outcome.status == 1
    assert "refused" in outcome.output


async def test_no_way_out(folder: Path) -> None:
    """What is not this machine cannot be reached at all."""
    code = (
        "import socket\nfor place in ('192.0.2.1', '2001:db8::1'):\n    try: socket.create_connection((place, 80), 1)\n"
    )
    code += "    except OSError as error: print(error.errno == 101)"

    assert (await attempt(code, folder)).output == "True\nTrue\n"


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
    outcome = await attempt(code, folder, BY_LIMIT.get(killed, ROOMY))

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


# How code might try to outlive whoever ran it.
STUBBORN = {
    "plain": "",
    "without its parent-death signal": "import ctypes; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)",
    "deaf": "import signal\nfor n in set(signal.Signals) - {9, 19}: signal.signal(n, signal.SIG_IGN)",
    "forked away": "import os\nif os.fork(): os._exit(0)\nos.setsid()\nos.close(1); os.close(2)",
    "many": "import os\nfor n in range(3): os.fork()",
    "against its first process": (
        "import contextlib, os\nfor n in (2, 15, 19):\n    with contextlib.suppress(OSError): os.kill(1, n)"
    ),
}
SERVICE = """
import asyncio, sys
from pathlib import Path
from app.sandbox import Limits, run
asyncio.run(run(sys.argv[1], Path(sys.argv[2]), Limits(wall_s=120, cpu_s=60)))
"""
LOOP = "\nopen('begun', 'w').close()\nwhile True: pass"


@pytest.mark.parametrize(
    "name", [name for name in STUBBORN if name not in ("forked away", "against its first process")]
)
def test_the_code_ends_with_the_service(folder: Path, name: str) -> None:
    """Where the service is killed nobody is left who could count the time, and nothing runs on."""
    with subprocess.Popen([sys.executable, "-c", SERVICE, STUBBORN[name] + LOOP, str(folder)]) as service:
        until((folder / "begun").exists, 60)
        service.kill()

    assert _left(folder) == []


@pytest.mark.parametrize("name", STUBBORN)
async def test_the_code_ends_in_time(folder: Path, name: str) -> None:
    """Whatever the code does about signals and parents, it has ended when its time is up, and nothing is left."""
    outcome = await attempt(STUBBORN[name] + LOOP, folder, Limits(wall_s=3, cpu_s=60))

    assert outcome.killed == ("" if name == "forked away" else "wall time")
    assert _left(folder) == []


@pytest.mark.parametrize("who", ["bubblewrap", "the first process"])
@pytest.mark.parametrize("name", ["plain", "without its parent-death signal"])
async def test_the_code_ends_with_its_supervisors(folder: Path, who: str, name: str) -> None:
    """Where memory runs out and the system kills one of them, the code ends, and the service goes on."""
    running = asyncio.create_task(run(STUBBORN[name] + LOOP, folder, Limits(wall_s=60, cpu_s=60)))
    await asyncio.to_thread(until, (folder / "begun").exists)
    outside, first = sorted(_processes(folder))[:2]
    os.kill({"bubblewrap": outside, "the first process": first}[who], signal.SIGKILL)
    outcome = await asyncio.wait_for(running, 10)

    assert (outcome.status, outcome.killed) == (-signal.SIGKILL, "signal 9")
    assert _left(folder) == []
    assert (await attempt("6*7", folder)).output == "42\n"


async def test_the_code_goes_first_where_memory_runs_out(folder: Path) -> None:
    """Each process of a sandbox is one that the system would rather kill than the service."""
    running = asyncio.create_task(run("import os; os.fork()" + LOOP, folder, Limits(wall_s=60, cpu_s=60)))
    await asyncio.to_thread(until, lambda: len(_processes(folder)) == 4)
    scores = [_score(pid) for pid in _processes(folder)]
    running.cancel()
    await asyncio.wait([running])

    assert scores == [1000] * 4


@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_in_the_middle(folder: Path, times: int) -> None:
    """Whoever is cancelled, once or over and over, leaves nothing that runs."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(run(LOOP, folder, Limits(wall_s=60, cpu_s=60)))
    await asyncio.to_thread(until, (folder / "begun").exists)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)

    assert await asyncio.to_thread(_left, folder) == []
    await asyncio.to_thread(until, lambda: len(asyncio.all_tasks(loop)) == 1)


async def test_many_at_once(folder: Path) -> None:
    """Fifty calls at once have each their own answer, and leave no process, mount, descriptor or folder."""

    def traces() -> tuple[str, set[str], int]:
        temporary = {entry.name for entry in Path(tempfile.gettempdir()).iterdir() if "sandbox" in entry.name}
        return Path("/proc/self/mounts").read_text(), temporary, len(list(Path("/proc/self/fd").iterdir()))

    await attempt("0", folder)
    before = traces()
    codes = [f"open('f', 'w').write('{n}'); print(open('f').read())" for n in range(50)]
    outcomes = await asyncio.gather(
        *(attempt(code, folder / str(n), Limits(wall_s=120)) for n, code in enumerate(codes))
    )

    assert [outcome.output for outcome in outcomes] == [f"{n}\n" for n in range(50)]
    assert traces() == before
    assert [_left(folder / str(n)) for n in range(50)] == [[]] * 50


async def test_what_is_shown_cannot_be_written(folder: Path) -> None:
    """The interpreter and the system's libraries are to read only, whoever the service is."""
    places = ["/", "/usr", "/usr/lib", "/lib", "/bin", "/dev", sys.base_prefix]
    code = f"import errno, os\nfor place in {places}:\n    try: open(f'{{place}}/new', 'w')\n"
    code += "    except OSError as error: print(errno.errorcode[error.errno])"

    assert set((await attempt(code, folder)).output.split()) <= {"EROFS", "EACCES"}
    assert not any((Path(place) / "new").exists() for place in places)


def test_a_mount_below_is_not_written_either(folder: Path) -> None:
    """What is mounted below a folder that is shown is to read only as well."""
    if os.geteuid() != 0:
        missing("root", "run this test as root: it mounts something below /usr")
    code = (
        "import errno\ntry: open('/usr/games/new', 'w')\nexcept OSError as error: print(errno.errorcode[error.errno])"
    )
    with _as_another("root of this machine") as ask:
        outcome = ask(
            code, ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o mode=1777 none /usr/games; exec "$@"', "sh"]
        )

    assert outcome["output"] == "EROFS\n"


SET_ID = {
    "chmod": "os.chmod('f', {mode})",
    "of an open file": "os.fchmod(os.open('f', os.O_RDWR), {mode})",
    "of a folder": "os.mkdir('d'); os.chmod('d', {mode})",
    "relative to a folder": "os.chmod('f', {mode}, dir_fd=os.open('.', os.O_RDONLY))",
    "when it is made": "os.open('new', os.O_CREAT | os.O_WRONLY, {mode})",
    "when it is made without a name": "os.open('.', os.O_TMPFILE | os.O_WRONLY, {mode})",
    "as a node": "os.mknod('new', 0o100000 | {mode})",
    "as a pipe": "os.mkfifo('new', {mode})",
    "fchmodat2": "must(call(452, -100, b'f', {mode}, 0))",
    "creat": "must(call(85, b'new', {mode}))",
    "openat2": "must(call(437, -100, b'new', (ctypes.c_uint64 * 3)(os.O_CREAT, {mode}, 0), 24))",
}
SET_ID_CALL = """
import ctypes, os
os.umask(0)
call = ctypes.CDLL(None, use_errno=True).syscall
def must(result):
    if result < 0: raise OSError(ctypes.get_errno(), 'refused')
open('f', 'w').close()
"""


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6000])
@pytest.mark.parametrize("name", SET_ID)
async def test_no_file_makes_others_the_service(folder: Path, name: str, mode: int) -> None:
    """No way of setting a set-id bit is open: whoever ran such a file would be the service's user."""
    if name == "creat" and os.uname().machine != "x86_64":
        pytest.skip("this machine has no such call")
    outcome = await attempt(SET_ID_CALL + SET_ID[name].format(mode=mode), folder)

    assert outcome.status == 1, outcome.output
    assert not [mode for mode in _modes(folder).values() if mode & (stat.S_ISUID | stat.S_ISGID)]


async def test_other_modes_can_be_set(folder: Path) -> None:
    """All bits but those can be set, and a call that makes no file may have anything where a mode would stand."""
    code = "import ctypes, os\nos.umask(0)\nopen('f', 'w').close()\nos.chmod('f', 0o1777); os.chmod('.', 0o755)\n"
    code += "os.open('g', os.O_CREAT, 0o755); os.mkfifo('p', 0o777)\n"
    openat = {"x86_64": 257, "aarch64": 56}[os.uname().machine]
    code += f"print(ctypes.CDLL(None).syscall({openat}, -100, b'f', os.O_RDONLY, 0o6777) > 2)"

    assert (await attempt(code, folder)).output == "True\n"
    assert _modes(folder) == {"thread": 0o755, "f": 0o1777, "g": 0o755, "p": 0o777}


async def test_what_it_writes_is_its_owners(folder: Path) -> None:
    """Folder and files are nobody else's to read, whatever the service's umask."""
    before = os.umask(0)
    try:
        await attempt("import os; open('f', 'w').close(); os.mkdir('d')", folder)
    finally:
        os.umask(before)

    assert _modes(folder) == {"thread": 0o700, "f": 0o600, "d": 0o700}


OTHERS = ("an ordinary user", "root of a user namespace")
FORKS = """
import os, time
made = 0
try:
    while True:
        if os.fork() == 0: time.sleep(60)
        made += 1
except BlockingIOError:
    print('forked', made < 20, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("who", OTHERS)
def test_whoever_the_service_is(who: str) -> None:
    """An ordinary user and root of a user namespace get the same: results, files, limits and walls."""
    with _as_another(who) as ask:
        assert ask("open('kept', 'w').write('x'); 6*7")["output"] == "42\n"
        assert ask("import os; print(open('kept').read(), os.getuid())")["output"] == "x 1000\n"
        assert ask("import os; os.setuid(0)")["status"] == 1
        assert ask("import os; os.listdir('/root')")["status"] == 1
        assert "unreachable" in ask("import socket; socket.create_connection(('192.0.2.1', 9), 1)")["output"]
        assert ask(FORKS)["output"] == "forked True\n"
        assert ask("while True: pass")["killed"] == "cpu time"
        assert (
            ask("import ctypes; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nwhile True: print('x' * 999)")["killed"]
            == "output"
        )
        assert ask("bytearray(10**10)")["output"].endswith("MemoryError\n")


async def test_without_bubblewrap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed nothing is run, and one sentence says what to install."""
    monkeypatch.setenv("PATH", str(folder.parent))
    with pytest.raises(Refused, match=r"^[^.]*bubblewrap is not installed \(apt install bubblewrap\)\.$"):
        await run("open('f', 'w')", folder)

    assert list(folder.parent.glob("thread")) == []


def test_without_user_namespaces() -> None:
    """Where the system forbids them nothing is run, and one sentence says what to allow."""
    forbid = ["unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"', "sh"]
    with _as_another("an ordinary user") as ask:
        refused = ask("open('f', 'w')", forbid)["refused"]

    assert "allow them (docs/python-repl.md)" in refused
    assert "/" not in refused.replace("docs/python-repl.md", "")


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


def _left(folder: Path) -> list[int]:
    """Return who still runs in the folder; a process that has been killed may take a moment to go."""
    deadline = time.monotonic() + 10
    while (found := _processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def _modes(folder: Path) -> dict[str, int]:
    return {place.name: stat.S_IMODE(place.stat().st_mode) for place in (folder, *folder.rglob("*"))}


def _processes(folder: Path) -> list[int]:
    """Return the processes of the folder's sandboxes: those that are to set one up, and those that are inside."""
    return [int(place.name) for place in Path("/proc").glob("[0-9]*") if _is_of(place, folder)]


def _is_of(process: Path, folder: Path) -> bool:
    try:
        set_up = f"\0{folder}\0/work\0".encode() in (process / "cmdline").read_bytes()
        return set_up or folder.samefile(process / "root" / "work")
    except OSError:
        return False


ANOTHER = """
import asyncio, dataclasses, json, sys
from pathlib import Path
from app.sandbox import Limits, Refused, run
try:
    outcome = asyncio.run(run(sys.argv[1], Path(sys.argv[2]), Limits(wall_s=60, cpu_s=1)))
    print(json.dumps(dataclasses.asdict(outcome)))
except Refused as error:
    print(json.dumps({"refused": str(error)}))
"""


@contextmanager
def _as_another(who: str) -> Iterator[Any]:
    """Yield what runs code for another user than this one, from a copy of the package that anybody can read."""
    user = {"user": 65534, "group": 65534, "extra_groups": []} if who in OTHERS and os.geteuid() == 0 else {}
    prefix = ["unshare", "-Ur"] if who == "root of a user namespace" else []
    if who in OTHERS and subprocess.run(["unshare", "-Ur", "true"], check=False, **user).returncode:
        pytest.skip("this system lets ordinary users make no user namespaces")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "data").mkdir(mode=0o777)
        (home / "data").chmod(0o777)
        shutil.copytree(Path(app.sandbox.__file__).parent, home / "app" / "sandbox")
        python = _interpreter(user)

        def ask(code: str, within: Sequence[str] = ()) -> Any:
            argv = [*prefix, *within, python, "-c", ANOTHER, code, str(home / "data" / "thread")]
            environment = {"PYTHONPATH": str(home), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, check=False, timeout=120, **user)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        yield ask


def _interpreter(user: dict[str, Any]) -> str:
    """Return an interpreter that this user can run: our own may be root's."""
    check = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        with suppress(PermissionError):
            if subprocess.run([python, *check], cwd="/", check=False, **user).returncode == 0:
                return python
    return missing("Python for any user", "apt-get install python3")
