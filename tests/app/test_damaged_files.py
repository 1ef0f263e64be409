"""Files of the service that are damaged when it starts."""

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from telemetry.testing.receiver import Receiver
from tests.background import api
from tests.processes import ROOT, free_port, run, until

FILES = ("service.db", "checkpoints.db", "engine.db")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a service that has answered, and whose run is unfinished."""
    folder = tmp_path_factory.mktemp("served")
    with Receiver() as receiver, api(folder, receiver) as one:
        for number in range(30):
            body = {"message": f"What is {number}*34?", "thread_id": f"t-{number}"}
            assert httpx.post(f"{one.url}/chatbot/invoke", json=body, timeout=60).is_success
        run = one.submit("work for 600 seconds", agent="bg-task")
        until(lambda: one.run(run["run_id"])["status"] == "running")
        one.kill()
    for name in FILES:
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
    return folder


def copied(folder: Path, to: Path) -> Path:
    for name in FILES:
        (to / name).write_bytes((folder / name).read_bytes())
    return to


def overwrite(file: Path, at: int, with_: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(with_)


def refusal(folder: Path) -> str:
    """What the service says as it refuses to start."""
    env = {"PORT": str(free_port()), "DATA_DIR": str(folder), "PATH": "/usr/bin:/bin"}
    status, said = run("app", env=env)
    assert status == 2, said
    return said


@pytest.mark.parametrize(("name", "damage"), [("service.db", "text"), ("checkpoints.db", "page")])
def test_a_damaged_database_is_one_sentence(folder: Path, tmp_path: Path, name: str, damage: str) -> None:
    """It names the file, and says what to do."""
    file = copied(folder, tmp_path) / name
    if damage == "text":
        file.write_text("hello, I am no database\n" * 400)
    else:
        # The pages after the schema.
        overwrite(file, 4096, b"\xff" * 12 * 4096)

    *before, said = refusal(tmp_path).splitlines()
    assert f"{file} is damaged" in said
    assert "restore it from a backup" in said
    assert all(line.startswith("INFO") for line in before)


@pytest.mark.parametrize("damage", ["text", pytest.param("page", marks=pytest.mark.chaos)])
def test_a_damaged_engine_keeps_nothing_else_from_serving(folder: Path, tmp_path: Path, damage: str) -> None:
    """Turns are answered; runs are refused in a sentence."""
    file = copied(folder, tmp_path) / "engine.db"
    if damage == "text":
        file.write_text("hello, I am no database\n" * 400)
    else:
        overwrite(file, 4096, b"\xff" * 12 * 4096)
    with Receiver() as receiver, api(tmp_path, receiver) as one:
        answer = httpx.post(f"{one.url}/chatbot/invoke", json={"message": "What is 6 * 7?"}, timeout=60)
        run = httpx.post(f"{one.url}/bg-task/runs", json={"message": "work for 1 second"}, timeout=60)

        assert "42" in answer.json()["content"]
        assert (run.status_code, "engine.db is damaged" in run.json()["detail"]) == (503, True)
        assert "Traceback" not in one.process.log
        assert sum("Background runs cannot be used" in line for line in one.process.log.splitlines()) == 1


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(30))
def test_bits_flipped_anywhere(folder: Path, tmp_path: Path, seed: int) -> None:
    """The service starts, or says in a sentence why not; each request is then answered, if by an error."""
    chance = random.Random(seed)
    file = copied(folder, tmp_path) / chance.choice(FILES)
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 10, 100])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    env = {"PORT": str(free_port()), "DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "DEMO_PACE_S": "0"}
    popen = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{env['PORT']}"
    try:
        until(lambda: popen.poll() is not None or _answers(url), 180)
        if popen.poll() is None:
            with httpx.Client(base_url=url, timeout=60) as http:
                http.get("/threads")
                for number in range(30):
                    http.post("/history", json={"thread_id": f"t-{number}"})
                http.post("/chatbot/invoke", json={"message": "Hello", "thread_id": f"t-{seed}"})
    finally:
        popen.send_signal(signal.SIGTERM)
        _, said = popen.communicate(timeout=60)
    if popen.returncode == 2:
        assert "Traceback" not in said


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.TransportError:
        return False
