"""How the viewer is started, and when it refuses to be."""

import base64
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from telemetry.testing.receiver import Receiver
from telemetry.viewer.settings import ViewerSettings
from tests.processes import ROOT, free_port, run, start
from tests.telemetry.viewer.conftest import TRACES, running

HEALTH = "/api/public/health"
COMMAND = [sys.executable, "-m", "telemetry.viewer"]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ViewerSettings.model_fields:
        monkeypatch.delenv(f"VIEWER_{name.upper()}", raising=False)


@pytest.mark.parametrize("missing", ["fastapi", "jinja2", "uvicorn"])
def test_a_missing_extra_is_named(missing: str) -> None:
    """Installed without its extra the viewer says in one sentence what to install."""
    code = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_module('telemetry.viewer', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    said = f"The viewer needs {missing}, which the extra installs: pip install 'agent-telemetry[viewer]'.\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_what_the_sdk_fails_over_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewer refuses a variable that the SDK cannot be imported with as all programs do."""
    monkeypatch.setenv("OTEL_PROPAGATORS", "b3")
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    said = "OTEL_PROPAGATORS names something that is not installed: correct it, or remove it.\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_defaults_are_for_this_machine_alone() -> None:
    """Nothing set is loopback with the well-known keys, and an empty variable is an unset one."""
    settings = ViewerSettings()
    assert (settings.host, settings.port, settings.loopback) == ("127.0.0.1", 3000, True)
    assert (settings.public_key, settings.secret_key.get_secret_value()) == ("pk-lf-local", "sk-lf-local")
    assert "sk-lf-local" not in repr(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "viewer.example"])
def test_strangers_need_keys(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bind that other machines reach is refused unless both keys were chosen."""
    monkeypatch.setenv("VIEWER_HOST", host)
    monkeypatch.setenv("VIEWER_PUBLIC_KEY", "")
    with pytest.raises(ValidationError, match="set VIEWER_PUBLIC_KEY and VIEWER_SECRET_KEY"):
        ViewerSettings()
    monkeypatch.setenv("VIEWER_PUBLIC_KEY", "pk-lf-mine")
    monkeypatch.setenv("VIEWER_SECRET_KEY", "sk-lf-mine")
    assert not ViewerSettings().loopback


def test_pages_ask_strangers_for_the_keys(tmp_path: Path) -> None:
    """Where other machines can reach it, the pages want the keys as well."""
    settings = ViewerSettings(
        host="0.0.0.0", public_key="pk-lf-mine", secret_key=SecretStr("sk-lf-mine"), db=tmp_path / "v.db"
    )
    with running(settings) as viewer:
        pages = ("traces", "traces/x", "traces/x.txt", "session?id=x", "sessions/x")
        for path in ("/", *(f"/project/local/{page}" for page in pages)):
            assert httpx.get(viewer.url + path, trust_env=False).status_code == 401
        assert viewer.client.get("/project/local/traces").status_code == 200


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"VIEWER_HOST": "0.0.0.0"}, "VIEWER_HOST=0.0.0.0 lets other machines in: set VIEWER_PUBLIC_KEY"),
        ({"VIEWER_PORT": "high"}, "VIEWER_PORT: Input should be a valid integer"),
    ],
)
def test_a_refused_start_is_one_sentence(env: dict[str, str], says: str) -> None:
    """What is wrong is said in one line, without a traceback."""
    status, said = run("telemetry.viewer", env=env)
    assert status == 1
    assert said.startswith(says)
    assert len(said.splitlines()) == 1


def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    """A folder in the file's place is told by the name of the variable."""
    assert _refused(VIEWER_DB=str(tmp_path)).startswith(f"VIEWER_DB={tmp_path} cannot be used (")


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """The variables that change it are named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = _refused(VIEWER_DB=str(tmp_path / "v.db"), VIEWER_PORT=str(taken.getsockname()[1]))

    assert "set VIEWER_HOST and VIEWER_PORT" in said


def _refused(**env: str) -> str:
    env = {"VIEWER_PORT": str(free_port()), **env}
    status, said = run("telemetry.viewer", env=env)
    assert status == 1
    [line] = said.splitlines()
    return line


def test_the_program_runs_and_does_not_trace_itself(tmp_path: Path) -> None:
    """`python -m telemetry.viewer` answers, and sends no span wherever the environment points."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Receiver() as receiver:
        env = {
            "VIEWER_PORT": str(port),
            "VIEWER_DB": str(tmp_path / "v.db"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        }
        with start(COMMAND, env, url + HEALTH) as process:
            answer = httpx.post(url + TRACES, json={}, auth=("pk-lf-local", "sk-lf-local"), trust_env=False)
            assert answer.status_code == 200
            assert httpx.get(url + "/project/local/traces", trust_env=False).status_code == 200
            process.stop()
        assert receiver.requests == []


def test_who_leaves_in_its_body_is_no_error(tmp_path: Path) -> None:
    """A body that ends before its end leaves no traceback."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with start(COMMAND, {"VIEWER_PORT": str(port), "VIEWER_DB": str(tmp_path / "v.db")}, f"{url}{HEALTH}") as process:
        for path in (TRACES, "/api/public/scores", "/api/public/ingestion"):
            keys = base64.b64encode(b"pk-lf-local:sk-lf-local").decode()
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {keys}\r\n"
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{".encode())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass
            assert httpx.get(f"{url}{HEALTH}", trust_env=False).status_code == 200
        assert "Traceback" not in process.log


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:3000", 200),
        ("localhost", 200),
        ("[::1]:3000", 200),
        ("viewer.example", 200),
        ("VIEWER.EXAMPLE:8443", 200),
        ("evil.example", 400),
        ("viewer.example.evil.example", 400),
        ("www.viewer.example", 400),
    ],
)
def test_other_host_names_are_allowed_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, status: int
) -> None:
    """A proxy's name is allowed beside the machine's own where it is set, on loopback and elsewhere; no other is."""
    monkeypatch.setenv("VIEWER_ALLOWED_HOSTS", "viewer.example, other.example")
    for where in ("127.0.0.1", "0.0.0.0"):
        keys = {"public_key": "pk-lf-mine", "secret_key": SecretStr("sk-lf-mine")}
        with running(ViewerSettings(host=where, db=tmp_path / "v.db", **keys)) as viewer:
            assert viewer.client.get("/project/local/traces", headers={"host": host}).status_code == status
