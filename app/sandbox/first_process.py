"""The first process of a sandbox: it runs the code as its child, and everything ends with it.

It is passed to the interpreter as text and needs only the standard library. It ends with the code, or when the other
end of its standard input is closed, because the service stops it or has ended. The code cannot reach it: the kernel
blocks signals to it from its namespace. Its arguments are numbers: the descriptor of the code, the limits, and the user
to become, 0 for none.
"""

import _thread
import ast
import os
import resource
import signal
import sys
from contextlib import suppress

# Output before it does not come from the code, but says why the code could not run.
BEGUN = b"\0"


def wait_for(child: int) -> int:
    """Return the exit code of the child, once all of its processes have ended, which adds their usage to ours."""
    status = 0
    with suppress(ChildProcessError):
        while True:
            ended, how = os.wait()
            if ended == child:
                status = os.waitstatus_to_exitcode(how)
                kill_all()
    return status if status >= 0 else 128 - status


def kill_all() -> None:
    """Kill every process of our namespace except this one."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def end_with_the_service() -> None:
    """End the code when the other end of the standard input is closed."""
    os.read(0, 1)
    kill_all()


def limit(kind: int, bound: int) -> None:
    """Set a limit permanently; a lower limit of the service itself stays."""
    _, hard = resource.getrlimit(kind)
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(kind, (bound, bound))


def become_the_code(cpu_s: int, memory_bytes: int, processes: int, file_bytes: int, user: int) -> None:
    """Keep only the resources that the code may use; its standard input is empty."""
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.setsid()
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.chdir("/work")
    os.umask(0o077)
    os.environ.pop("PWD", None)
    del sys.argv[1:]
    limit(resource.RLIMIT_CPU, cpu_s)
    limit(resource.RLIMIT_AS, memory_bytes)
    limit(resource.RLIMIT_NPROC, processes)
    limit(resource.RLIMIT_FSIZE, file_bytes)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_CORE, 0)
    os.write(1, BEGUN)


def main() -> bytes:
    """Fork, and return the code in the process that runs it."""
    code_fd, *limits = map(int, sys.argv[1:])
    with os.fdopen(code_fd, "rb") as file:
        code = file.read()
    child = os.fork()
    if child:
        # A first process ignores it by default.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _thread.start_new_thread(end_with_the_service, ())
        os._exit(wait_for(child))
    become_the_code(*limits)
    return code


if __name__ == "__main__":
    tree = ast.parse(main(), "<code>")
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        tree.body.pop()
    names = {"__name__": "__main__"}
    exec(compile(tree, "<code>", "exec"), names)  # noqa: S102 - this is the purpose of the sandbox
    # Print the value of the last expression, as an interactive interpreter does.
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names)  # noqa: S307 - as above
        if value is not None:
            print(repr(value))  # noqa: T201 - the output of the code
