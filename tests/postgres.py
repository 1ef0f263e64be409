"""A real Postgres server of the tests' own, on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.processes import free_port, until

INSTALL = "Postgres is not installed here: apt-get install postgresql"


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty server; skips the test where none is installed, and fails it in CI."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    as_user = _unprivileged(folder)
    data, port = folder / "data", free_port()
    subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "tests", "--no-sync"],
        check=True,
        capture_output=True,
        **as_user,
    )
    settings = f"-k {folder} -h 127.0.0.1 -p {port} -c fsync=off"
    popen = subprocess.Popen(
        [programs / "postgres", "-D", data, *settings.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,
    )
    url = f"postgresql://tests@127.0.0.1:{port}/postgres"
    try:
        until(lambda: _answers(url))
        yield url
    finally:
        popen.send_signal(signal.SIGINT)  # SIGTERM would wait for whoever is still connected
        popen.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(INSTALL)
    return found[-1].parent


def _unprivileged(folder: Path) -> dict[str, str]:
    # Postgres refuses to run as root.
    if os.geteuid():
        return {}
    shutil.chown(folder, "postgres")
    return {"user": "postgres", "cwd": str(folder)}


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
