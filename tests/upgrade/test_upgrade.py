"""What each release has left on disk, the present code takes over: `python -m tests.upgrade.record` records it."""

import gzip
import sqlite3
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from telemetry.delivery.writer import destination
from telemetry.settings import load_settings
from tests.processes import ROOT, UNSET, free_port, start, until
from tests.test_readme import OTHER_NAMES
from tests.upgrade.record import KEYS, QUESTION, THREAD, USER

RELEASES = sorted(path for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name[0].isdigit())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def left(release: Path, tmp_path: Path) -> Path:
    """The files of the release, as its processes left them."""
    for packed in release.glob("*.gz"):
        path = tmp_path / packed.name.removesuffix(".gz").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        if path.parent.name == "spool":
            with closing(sqlite3.connect(path)) as db:
                # They would be too old to be sent, some day.
                db.execute("UPDATE waiting SET at = ?", (time.time(),))
                db.commit()
    return tmp_path


def test_conversations_go_on(left: Path) -> None:
    """The history of a thread is there, the thread is listed and can be continued, and so is the background run."""
    url = f"http://127.0.0.1:{free_port()}"
    env = {
        "PORT": url.rsplit(":", 1)[1],
        "DATA_DIR": str(left / "data"),
        "DEMO_PACE_S": "0",
        "LANGFUSE_TRACING": "false",
    }
    as_user = {"X-User-Id": USER}
    with (
        start([sys.executable, "-m", "app"], env, f"{url}/health", 120),
        httpx.Client(base_url=url, headers=as_user, timeout=60, trust_env=False) as client,
    ):
        before = client.post("/history", json={"thread_id": THREAD}).json()["messages"]
        assert [message["content"] for message in before if message["type"] == "human"] == [QUESTION, QUESTION]
        assert "408" in before[-1]["content"]
        assert THREAD in [thread["thread_id"] for thread in client.get("/threads").json()["threads"]]
        [run] = client.get("/runs").json()["runs"]
        assert run["status"] == "completed"

        answer = client.post("/chatbot/invoke", json={"message": "What is 2*3?", "thread_id": THREAD})
        assert "6" in answer.json()["content"]
        after = client.post("/history", json={"thread_id": THREAD}).json()["messages"]
        assert after[: len(before)] == before
        assert len(after) > len(before)


def test_waiting_spans_and_scores_are_delivered(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every span and score that waited for the backend arrives there, and nothing is left."""
    spool = left / "spool"
    waiting = sum(map(count, spool.glob("*.db")))
    with viewer(left / "another.db") as (backend, auth):
        keys = {**KEYS, "LANGFUSE_HOST": backend}
        address(spool, keys, monkeypatch)
        url = f"http://127.0.0.1:{free_port()}"
        env = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(left / "new"), "TELEMETRY_SPOOL_DIR": str(spool), **keys}
        with start([sys.executable, "-m", "app"], env, f"{url}/health", 120):
            until(lambda: sum(map(count, spool.iterdir())) == 0)
        arrived = httpx.get(f"{backend}/api/public/v2/observations?limit=1000", auth=auth, timeout=60).json()["data"]
        scores = httpx.get(f"{backend}/api/public/v3/scores", auth=auth, timeout=60).json()["data"]
    assert len(arrived) >= waiting > 20
    assert {"turn", "calculator"} <= {each["name"] for each in arrived}
    assert [(each["name"], each["value"]) for each in scores] == [("stars", 0.8)]


def test_the_viewer_shows_former_traces(left: Path) -> None:
    """Its file is read, and takes further traces."""
    with viewer(left / "viewer.db") as (url, auth):
        found = httpx.get(f"{url}/api/public/v2/observations", auth=auth, timeout=60).json()["data"]
    assert {"turn", "calculator"} <= {each["name"] for each in found}


def test_former_variables_are_still_read(release: Path) -> None:
    """A variable of the release is read today, or the changelog says that it was removed."""
    former = (release / "variables.txt").read_text().split()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    gone = [name for name in former if name not in UNSET and not OTHER_NAMES.fullmatch(name)]
    assert former
    assert [name for name in gone if f"`{name}`" not in changelog] == []


def test_the_present_release_is_recorded() -> None:
    """What it leaves is there before it is published, so that the next one is tested with it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in {path.name for path in RELEASES}


@contextmanager
def viewer(file: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """The address of a viewer on this file, and its keys."""
    url = f"http://127.0.0.1:{free_port()}"
    env = {"VIEWER_PORT": url.rsplit(":", 1)[1], "VIEWER_DB": str(file)}
    with start([sys.executable, "-m", "telemetry.viewer"], env, f"{url}/api/public/health", 120):
        yield url, (KEYS["LANGFUSE_PUBLIC_KEY"], KEYS["LANGFUSE_SECRET_KEY"])


def count(path: Path) -> int:
    """The records that wait in a file of the spool."""
    if path.suffix not in (".db", ".sqlite"):
        return 0
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT count(*) FROM waiting").fetchone()[0]


def address(spool: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rename the files as if they had been written for this backend: their names contain where they go."""
    for name, value in (UNSET | keys).items():
        monkeypatch.setenv(name, value)
    here = destination(load_settings())
    for path in spool.glob("*-*.db"):
        path.rename(spool / f"{here}-{path.name.split('-', 1)[1]}")
    account = sha256(f"{keys['LANGFUSE_HOST']} {keys['LANGFUSE_PUBLIC_KEY']}".encode()).hexdigest()[:8]
    for path in spool.glob("scores-langfuse-*.sqlite"):
        path.rename(spool / f"scores-langfuse-{account}.sqlite")
