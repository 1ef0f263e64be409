"""Record what a release leaves on disk: a thread, a background run, waiting spans, a viewer's trace, its variables.

python -m tests.upgrade.record                      the release in pyproject.toml, from this checkout
python -m tests.upgrade.record NAME --checkout DIR  another one
"""

import argparse
import gzip
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
from dotenv import dotenv_values

from tests.processes import ROOT, free_port, until

FOLDER = Path(__file__).parent
KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-local", "LANGFUSE_SECRET_KEY": "sk-lf-local"}
# Nobody answers there, so that spans wait.
NOWHERE = "http://127.0.0.1:9"
THREAD, USER, QUESTION = "t-1", "ada", "What is 12*34?"
SUFFIXES = (".db", ".sqlite")


def main() -> None:
    """Record one release."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade.record", description=__doc__)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    parser.add_argument("name", nargs="?", default=version)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record(arguments.checkout, folder)
        recorded = FOLDER / arguments.name
        shutil.rmtree(recorded, ignore_errors=True)
        recorded.mkdir()
        for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
            name = path.relative_to(folder).as_posix().replace("/", "__")
            (recorded / f"{name}.gz").write_bytes(gzip.compress(whole(path), mtime=0))
        (recorded / "variables.txt").write_text("\n".join(variables(arguments.checkout)) + "\n")


def record(checkout: Path, folder: Path) -> None:
    """Answer a question while the viewer takes its trace, and one more while no backend answers; kill the service."""
    viewer = free_port()
    env = {"VIEWER_PORT": str(viewer), "VIEWER_DB": str(folder / "viewer.db")}
    host = f"http://127.0.0.1:{viewer}"
    with _program(checkout, "telemetry.viewer", env, f"{host}/api/public/health"):
        with _service(checkout, folder, "sent", host) as url:
            _ask(url)
        until(lambda: _count(folder / "viewer.db", "spans") > 5)
    with _service(checkout, folder, "spool", NOWHERE) as url:
        answer = _ask(url)
        vote = {"run_id": answer["run_id"], "key": "stars", "score": 0.8, "user_id": USER}
        httpx.post(f"{url}/feedback", json=vote, timeout=60).raise_for_status()
        run = httpx.post(f"{url}/chatbot/runs", json={"message": "Hello", "user_id": USER}, timeout=60).json()
        until(
            lambda: "complete" in httpx.get(f"{url}/runs/{run['run_id']}", headers={"X-User-Id": USER}, timeout=60).text
        )
        # Spans are on disk some milliseconds after their end.
        until(lambda: _waits(folder / "spool"))
    shutil.rmtree(folder / "sent", ignore_errors=True)


def variables(checkout: Path) -> list[str]:
    """Return the names of the variables that a release reads."""
    return sorted(dotenv_values(checkout / ".env.example"))


def whole(path: Path) -> bytes:
    """Return a database as one file, without free pages."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (f"{path}.whole",))
    return Path(f"{path}.whole").read_bytes()


def _ask(url: str) -> dict[str, str]:
    body = {"message": QUESTION, "thread_id": THREAD, "user_id": USER}
    answer = httpx.post(f"{url}/chatbot/invoke", json=body, timeout=60)
    return answer.raise_for_status().json()


def _waits(spool: Path) -> bool:
    return any(_count(path, "waiting") > 20 for path in spool.glob("*.db"))


def _count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@contextmanager
def _service(checkout: Path, folder: Path, spool: str, host: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    env = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(folder / "data"), "DEMO_PACE_S": "0", **KEYS}
    env |= {"TELEMETRY_SPOOL_DIR": str(folder / spool), "LANGFUSE_HOST": host}
    with _program(checkout, "app", env, f"{url}/health", stop=signal.SIGKILL if spool == "spool" else signal.SIGTERM):
        yield url


@contextmanager
def _program(
    checkout: Path, module: str, env: dict[str, str], url: str, stop: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    # Empty, so that a developer's own .env is not read.
    unset = dict.fromkeys(variables(checkout), "") | {name: os.environ[name] for name in ("PATH", "HOME")}
    process = subprocess.Popen([sys.executable, "-m", module], cwd=checkout, env=unset | env)
    try:
        until(lambda: _answers(url), 180)
        yield
    finally:
        process.send_signal(stop)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
