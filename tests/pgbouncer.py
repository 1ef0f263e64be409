"""A real PgBouncer in front of a Postgres server of the tests' own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.parts import missing
from tests.processes import free_port, until


@contextmanager
def pgbouncer(database: str, mode: str = "transaction", settings: str = "", port: int = 0) -> Iterator[str]:
    """The address of the same database through a pooler in this mode."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin") or missing(
        "PgBouncer", "apt install pgbouncer"
    )
    port, folder, parts = port or free_port(), Path(tempfile.mkdtemp(prefix="pgbouncer-")), conninfo_to_dict(database)
    server = f"* = host=127.0.0.1 port={parts['port']} user={parts['user']}"
    (folder / "users.txt").write_text(f'"{parts["user"]}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder / 'users.txt'}\npool_mode = {mode}\n{settings}\n"
    )
    user = None
    if not os.geteuid():
        # PgBouncer refuses to run as root.
        user = "postgres"
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    url = f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}"
    with (folder / "log").open("wb") as log:
        popen = subprocess.Popen([program, folder / "pgbouncer.ini"], stdout=log, stderr=log, user=user, cwd=folder)
    try:
        until(lambda: _answers(url), complaint=(folder / "log").read_text)
        yield url
    finally:
        popen.terminate()
        popen.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
