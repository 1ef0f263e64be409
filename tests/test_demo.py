"""The demo as a person starts it: real processes, real ports, one real turn."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.demo.turn import is_whole
from tests.parts import missing
from tests.processes import ROOT, UNSET, free_port, until

PORTS = ("PORT", "UI_PORT", "VIEWER_PORT")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ports = {name: str(free_port()) for name in PORTS}
    return {"PATH": os.environ["PATH"], **UNSET, **ports, "DATA_DIR": str(tmp_path), "DEMO_PACE_S": "0"}


def finish(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@contextmanager
def running(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        demo = subprocess.Popen([sys.executable, "-m", "app.demo"], cwd=ROOT, env=environment, stdout=output)
    try:
        yield demo
    finally:
        demo.terminate()
        demo.wait(60)


def listens(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def test_one_turn_is_one_tree_and_the_demo_stays_until_it_is_told_to_go(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The demo prints its turn's whole trace, serves on, and leaves nothing running behind it."""
    log = tmp_path / "demo.log"
    with running(environment, log) as demo:
        until(lambda: demo.poll() is not None or "Ctrl-C" in log.read_text(), 120, log.read_text)
        assert all(listens(environment[name]) for name in PORTS)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 0
    assert not any(listens(environment[name]) for name in PORTS)
    printed = log.read_text()
    assert "408" in printed
    call = "POST agent-api /{agent_id}/stream CLIENT"
    assert f"\nchat turn\n  {call}\n    POST /{{agent_id}}/stream SERVER\n      turn AGENT\n" in printed
    assert f"http://127.0.0.1:{environment['VIEWER_PORT']}/project/local/traces/" in printed
    assert f"http://127.0.0.1:{environment['UI_PORT']}/?thread_id=" in printed


def test_with_tracing_off_there_is_the_answer_and_no_viewer(environment: dict[str, str]) -> None:
    """Tracing off changes no answer, is said in so many words, and needs no backend."""
    taken = socket.create_server(("127.0.0.1", 0))
    environment |= {"LANGFUSE_TRACING": "false", "DEMO_ONCE": "1", "VIEWER_PORT": str(taken.getsockname()[1])}
    with taken:
        done = finish(environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "408" in done.stdout
    assert "Tracing is off" in done.stdout


def test_prometheus_has_the_metrics_and_an_exemplar_of_the_trace(environment: dict[str, str]) -> None:
    """PROMETHEUS=1 prints the page with the turn's metrics, and the trace that the exemplar of its duration names."""
    if not shutil.which("prometheus") or not find_spec("prometheus_client"):
        missing("prometheus", "apt-get install prometheus, and the extra `prometheus`")
    ports = {name: str(free_port()) for name in ("PROMETHEUS_PORT", "OTEL_EXPORTER_PROMETHEUS_PORT")}
    done = finish(environment | ports | {"DEMO_ONCE": "1", "PROMETHEUS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    (trace,) = re.findall(r"^trace +(\S+)$", done.stdout, re.MULTILINE)
    assert f"metrics http://127.0.0.1:{ports['PROMETHEUS_PORT']}/graph?" in done.stdout
    assert re.search(
        rf"^exemplar of gen_ai_invoke_agent_duration_seconds_bucket: .* trace {trace}$", done.stdout, re.MULTILINE
    )


@pytest.mark.parametrize("name", PORTS)
def test_a_taken_port_is_one_sentence(name: str, environment: dict[str, str]) -> None:
    """Nothing is started while a port is taken, and the sentence names the variable to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment[name] = str(taken.getsockname()[1])
        done = finish(environment)
    assert done.returncode == 1
    assert re.fullmatch(rf"Port \d+ is not free for the \w+: set {name} to another one\.\n", done.stderr)


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "high"), ("UI_PORT", "70000"), ("LANGFUSE_HOST", "http://127.0.0.1:9")]
)
def test_a_setting_that_cannot_be_served_is_one_sentence(name: str, value: str, environment: dict[str, str]) -> None:
    """A bad value is refused at start, by the name of its variable."""
    done = finish(environment | {name: value})
    assert done.returncode == 1
    assert name in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_part_that_dies_shows_its_last_words(environment: dict[str, str]) -> None:
    """Whoever looks at the terminal sees why the service would not start."""
    done = finish(environment | {"AUTH_SECRET": "short"})
    assert done.returncode == 1
    assert done.stderr.startswith("The service ended with status 2:\nAUTH_SECRET")


@pytest.mark.parametrize(
    ("tree", "whole"),
    [
        ("chat turn\n  POST CLIENT\n    POST /stream SERVER\n      turn AGENT", True),
        ("chat turn\n  POST CLIENT", False),
        ("chat turn\n  POST CLIENT\n    POST /stream SERVER\n^turn AGENT", False),
        ("^POST CLIENT\n  POST /stream SERVER", False),
        ("", False),
    ],
)
def test_a_tree_is_whole_with_its_root_its_service_and_no_orphan(tree: str, whole: bool) -> None:
    """The demo's exit status is true: an orphan or a missing part is not a whole trace."""
    assert is_whole(tree) is whole
