"""Start Python modules as processes of their own, from one that has imported them: that costs a tenth of the CPU.

A start of the service takes four seconds of CPU, and nearly all of it is imports. `run_module` forks the server, which
has done them, and runs the module there as `python -m` would, to the end of the interpreter; `run_code` does the same
for `python -c`.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from types import ModuleType
from typing import NoReturn

PRELOADED = (
    "app.service",
    "dbos",
    "httpcore",
    "httptools",
    "langfuse.api.projects.client",
    "langfuse.api.scores.client",
    "psycopg",
    "telemetry.instrumentation.langchain.instrumentor",
    "telemetry.server",
    "telemetry.viewer.app",
    "uvloop",
)
# What these say is read while modules are imported: such a process needs an interpreter of its own.
_READ_ON_IMPORT = (
    "OTEL_PROPAGATORS",
    "OTEL_PYTHON_",
    "PYTHON",
    "LANGCHAIN_",
    "LANGSMITH_",
    "LANGFUSE_PROMPT_CACHE_",
    "DBOS_",
    "PYDANTIC_",
)
_READ_LATER = ("PYTHON_DOTENV_DISABLED",)


class ForkedProcess:
    """A process of the server's, with what tests use of `subprocess.Popen`."""

    def __init__(self, order: Mapping[str, object], args: Sequence[str], server: Path) -> None:
        self.args = args
        self.returncode: int | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(server))
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        self._answers = self._socket.makefile()
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """The exit status, as `Popen` has it, if the process has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; raises `TimeoutExpired` if the process goes on for longer."""
        if self.returncode is None:
            with DefaultSelector() as selector:
                selector.register(self._socket, EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._socket.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run_module(module: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> ForkedProcess:
    """Start a module as `python -m` does, with nothing on its stdin and all that it prints in the file."""
    order = {"module": module, "argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log)}
    return ForkedProcess(order, [sys.executable, "-m", module, *argv], _server())


def run_code(
    code: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, errors: Path
) -> ForkedProcess:
    """Start a program as `python -c` does, with nothing on its stdin and what it prints in the two files."""
    order = {"code": code, "argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log)}
    return ForkedProcess({**order, "errors": str(errors)}, [sys.executable, "-c", code, *argv], _server())


def can_run(env: Mapping[str, str]) -> bool:
    """Whether a process with these variables may be forked from one that has imported its modules without them."""
    given = {name for name, value in env.items() if value}.difference(_READ_LATER)
    return not any(name.startswith(_READ_ON_IMPORT) for name in given)


@cache
def _server() -> Path:
    """The socket of this process's server, which ends with it."""
    folder = tempfile.mkdtemp()
    path = Path(folder, "socket")
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    argv = [sys.executable, "-m", "tests.fork_server", str(path)]
    pipe = subprocess.PIPE
    server = subprocess.Popen(argv, env=env, cwd=Path(__file__).parent.parent, stdin=pipe, stdout=pipe)
    assert server.stdin
    assert server.stdout
    server.stdout.readline()
    atexit.register(_end, server, path)
    return path


def _end(server: subprocess.Popen[bytes], path: Path) -> None:
    server.communicate()
    path.unlink()
    path.parent.rmdir()


def main() -> None:
    """Fork for each order, until stdin is closed."""
    for name in PRELOADED:
        import_module(name)
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    os.write(1, b"ready\n")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    selector = DefaultSelector()
    selector.register(listener, EVENT_READ, listener)
    selector.register(sys.stdin, EVENT_READ)
    while all(key.data for key, _ in selector.select()):
        connection, _ = listener.accept()
        if not os.fork():
            selector.close()
            listener.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Become the process that was ordered, in a child; tell its id, and in the end its status."""
    order = json.loads(connection.makefile().readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not (pid := os.fork()):
        connection.close()
        _become(**order)
    with suppress(OSError):  # the test may be over
        connection.sendall(f"{pid}\n".encode())
        connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
    os._exit(0)


def _become(
    argv: Sequence[str], env: Mapping[str, str], cwd: str, log: str, errors: str = "", module: str = "", code: str = ""
) -> NoReturn:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, path in ((1, log), (2, errors or log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = [module or "-c", *argv]
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    sys.exit()


if __name__ == "__main__":
    main()
