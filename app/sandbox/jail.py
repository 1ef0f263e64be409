"""A program that runs code from its standard input in namespaces of its own; it needs the standard library only.

It is started with the limits as JSON. The code sees an empty environment, the interpreter's own files and one
folder, has no network, no other processes and no privileges, and not all system calls. What came of it goes to the
descriptor `report`.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    *(0x00020000, 0x04000000, 0x08000000, 0x10000000),
    *(0x20000000, 0x40000000),
)
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 0x1, 0x2, 0x4, 0x20, 0x1000, 0x4000, 0x40000
DETACH = 0x2
PDEATHSIG, SECCOMP, NO_NEW_PRIVS = 1, 22, 38
BY_FILTER = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# The last expression's value is shown, as at a prompt.
SHOW = """
import ast, sys
tree = ast.parse(sys.stdin.buffer.read(), "<code>")
last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
names = {"__name__": "__main__"}
exec(compile(tree, "<code>", "exec"), names)
if last and (value := eval(compile(ast.Expression(last.value), "<code>", "eval"), names)) is not None:
    print(repr(value))
"""

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Run what stands on the standard input."""
    limits = json.loads(sys.argv[1])
    must(libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        leave()
    except OSError as error:
        report(limits, {"refused": f"this system allows no namespaces ({error.strerror})"})
        return
    reader, writer = os.pipe()
    # One that comes before its handler is there waits for it: by default it would end us alone, without the child.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        os.close(reader)
        live(limits, writer)
    os.close(writer)
    signal.signal(signal.SIGTERM, lambda *_: end(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    supervise(limits, child, reader)


def supervise(limits: dict, child: int, reader: int) -> None:
    """Wait for the code's end, whose process takes all that it has started along, and report."""
    os.close(0)
    os.close(1)
    os.close(2)
    _, status, used = os.wait4(child, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    refused = os.read(reader, 1000).decode()
    told = {"refused": refused} if refused else {"status": os.waitstatus_to_exitcode(status)}
    report(limits, {**told, "cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024})


def end(child: int) -> None:
    """End the code's first process, and with it its namespace."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def live(limits: dict, writer: int) -> None:
    """Become the code; whatever prevents that is written, and nothing is run."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.setsid()
        must(libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        furnish(limits)
        restrict(limits)
        renounce(limits)
        forbid(bytes.fromhex(limits["calls"]))
        os.set_inheritable(writer, False)
        os.close(limits["report"])
        os.execve(limits["python"], ["python", "-I", "-S", "-B", "-c", SHOW], {})  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(writer, f"the namespace could not be furnished ({error.strerror})".encode())
    finally:
        os._exit(1)


def leave() -> None:
    """Enter new namespaces; without privileges by a user namespace, in which one has them."""
    user, group = os.geteuid(), os.getegid()
    spaces = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    must(libc.unshare(spaces if user == 0 else spaces | NEWUSER))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def furnish(limits: dict) -> None:
    """Make a root of our own: the interpreter to read, one folder and a small /tmp to write."""
    mount("none", "/", None, REC | PRIVATE)
    root = Path(limits["root"])
    mount("tmpfs", str(root), "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for place in ("/usr", "/lib", "/lib64", "/bin", limits["prefix"]):
        show(root, Path(place))
    for device in ("/dev/null", "/dev/urandom"):
        inside = root / device[1:]
        inside.parent.mkdir(exist_ok=True)
        inside.touch()
        mount(device, str(inside), None, BIND)
    (root / "work").mkdir()
    mount(limits["folder"], str(root / "work"), None, BIND)
    (root / "tmp").mkdir()
    mount("tmpfs", str(root / "tmp"), "tmpfs", NOSUID | NODEV, f"size={limits['file_bytes']},mode=1777")
    os.chdir(root)
    must(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."))
    must(libc.umount2(b".", DETACH))
    mount("none", "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    os.chdir("/work")


def show(root: Path, place: Path) -> None:
    """Let a folder be read in the new root, under its old name."""
    inside = root / str(place)[1:]
    if not place.exists() or inside.exists() or inside.is_symlink():
        return
    if place.is_symlink():
        inside.symlink_to(place.readlink())
        return
    inside.mkdir(parents=True)
    mount(str(place), str(inside), None, BIND | REC)
    mount("none", str(inside), None, REMOUNT | BIND | RDONLY | os.statvfs(inside).f_flag & (NOSUID | NODEV | 0x8))


def restrict(limits: dict) -> None:
    """Set what each of the code's processes may use."""
    bounds = {
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    for kind, bound in bounds.items():
        resource.setrlimit(kind, (bound, bound))


def renounce(limits: dict) -> None:
    """Give up every privilege for good; `execve` ends those of a user namespace."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(limits["user"], limits["user"], limits["user"])
        os.setresuid(limits["user"], limits["user"], limits["user"])
        # The kernel forgets it where a process becomes another user's.
        must(libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    must(libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0))


def forbid(calls: bytes) -> None:
    """Have the kernel look at each system call from here on, for good."""
    steps = ctypes.create_string_buffer(calls, len(calls))
    order = ctypes.create_string_buffer(struct.pack("HP", len(calls) // 8, ctypes.addressof(steps)))
    must(libc.prctl(SECCOMP, BY_FILTER, ctypes.byref(order), 0, 0))


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount."""
    must(libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), data.encode()))


def must(result: int) -> None:
    """Raise the error of a system call that failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def report(limits: dict, told: dict) -> None:
    """Tell what came of it."""
    os.write(limits["report"], json.dumps(told).encode())


if __name__ == "__main__":
    main()
