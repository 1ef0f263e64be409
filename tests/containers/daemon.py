"""A Docker daemon for the length of a test run, which leaves the machine's network as it was, and its base image."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import processes

PROGRAMS = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "iptables-save": "iptables",
}
DOCKER = "/usr/bin/docker"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE = "agent-telemetry-base"
ROOT = processes.ROOT / ".data" / "containers"


def obstacle() -> str | None:
    """Return in one line why this machine cannot run containers of its own, None if it can."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if missing:
        return f"containers need {', '.join(missing)}: apt-get install {' '.join(missing)}"
    if os.geteuid():
        return "containers need root: they bring their own daemon"
    return None


class Daemon:
    """A running daemon."""

    def __init__(self, socket: Path) -> None:
        self.env = os.environ | {"DOCKER_HOST": f"unix://{socket}", "COMPOSE_DOCKER_CLI_BUILD": "0"}

    def docker(self, *arguments: str) -> str:
        """Return what a docker command prints."""
        return run([DOCKER, *arguments], self.env)


@contextmanager
def daemon() -> Iterator[Daemon]:
    """A daemon of its own, on its own socket and data; network rules and addresses are put back afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dockerd-")))
        stack.enter_context(_network_put_back())
        log = stack.enter_context((folder / "log").open("wb"))
        socket = folder / "docker.sock"
        places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
        argv = ["dockerd", f"--host=unix://{socket}", f"--mtu={_mtu()}", *places]
        popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            engine = Daemon(socket)
            processes.until(lambda: _answers(engine, popen, folder / "log"), 60)
            yield engine
        finally:
            popen.terminate()
            popen.wait(60)


def base_image(engine: Daemon) -> str:
    """Return the name of a base image: the one that BASE names, else a small Debian with Python made here."""
    if os.environ.get("BASE"):
        return os.environ["BASE"]
    archive = ROOT / "base.tar"
    if not archive.exists():
        _make_base(archive)
    trust = [f"ENV {name}={CERTIFICATES}" for name in ("PIP_CERT", "SSL_CERT_FILE")]
    engine.docker("import", *(f"--change={line}" for line in trust), str(archive), BASE)
    return BASE


def run(argv: Sequence[str], env: dict[str, str] | None = None, seconds: float = 900) -> str:
    """Return what a command prints; a failure shows all of it."""
    done = subprocess.run(
        argv, env=env, cwd=processes.ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _make_base(archive: Path) -> None:
    """Debian as the machine is, with its certificates: an image built behind a proxy must trust what we trust."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="debootstrap-") as folder:
        packages = "--include=python3,python3-venv,ca-certificates"
        run(["nice", "debootstrap", "--variant=minbase", packages, "bookworm", folder])
        (Path(folder) / CERTIFICATES.relative_to("/")).write_bytes(CERTIFICATES.read_bytes())
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(Path(folder) / waste, ignore_errors=True)
        partial = archive.with_suffix(".part")
        run(["tar", "--numeric-owner", "-C", folder, "-cf", str(partial), "."])
        partial.rename(archive)


@contextmanager
def _network_put_back() -> Iterator[None]:
    forward, rules, links = FORWARD.read_text(), run(["iptables-save"]), _links()
    try:
        yield
    finally:
        for link in _links() - links:
            subprocess.run(["ip", "link", "delete", link], check=False)
        FORWARD.write_text(forward)
        subprocess.run(["iptables-restore"], input=rules or EMPTY_RULES, text=True, check=True)


# A machine that never had a rule saves nothing, and nothing restores nothing.
EMPTY_RULES = """
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
COMMIT
"""


def _links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def _mtu() -> int:
    """The smallest of the machine's own: a bridge's larger packets would vanish on the way out."""
    own = [Path(f"/sys/class/net/{link}") for link in _links() - {"lo"}]
    return min((int((link / "mtu").read_text()) for link in own if (link / "device").exists()), default=1500)


def _answers(engine: Daemon, popen: subprocess.Popen[bytes], log: Path) -> bool:
    assert popen.poll() is None, f"dockerd ended:\n{log.read_text()[-4000:]}"
    return subprocess.run([DOCKER, "info"], env=engine.env, capture_output=True, check=False).returncode == 0
