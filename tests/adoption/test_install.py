"""The wheel in a clean environment, by pip and by uv, on each Python that is here: `make dist`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.package import build
from tests.adoption.matrix import interpreter
from tests.parts import missing
from tests.processes import ROOT, free_port, start, until
from tests.test_package import COMMANDS, PYTHONS

pytestmark = pytest.mark.matrix
PROGRAM = ROOT / "tests" / "adoption" / "programs" / "wheel_service.py"
AGENTS = ("langchain>=1.4,<2", "langgraph>=1.2,<2")
KEYS = ("pk-lf-local", "sk-lf-local")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=PYTHONS)
def environment(request: pytest.FixtureRequest, installer: str, wheel: Path, tmp_path: Path) -> Iterator[Path]:
    """The programs of a new environment, in which the wheel is installed with its extras."""
    python = shutil.which(interpreter(request.param)) or shutil.which(f"python{request.param}")
    if not python:
        missing(f"Python {request.param}", "install it, for instance by pyenv")
    folder = tmp_path / "venv"
    wanted = [f"{wheel}[langfuse,prometheus,viewer]", *AGENTS]
    if installer == "pip":
        _run(python, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted)
    else:
        uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
        _run(uv, "venv", "--quiet", "--python", python, str(folder))
        _run(uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *wanted)
    yield folder / "bin"
    shutil.rmtree(folder)


def test_a_strangers_service_is_traced(environment: Path, tmp_path: Path) -> None:
    """With the wheel alone the commands run, and three lines bring a turn to the viewer that it contains."""
    for command in COMMANDS:
        assert "usage: agent-telemetry" in _run(str(environment / "agent-telemetry"), command, "--help")
    assert _run(str(environment / "agent-telemetry"), "--version").startswith("agent-telemetry 0.")

    shutil.copy(PROGRAM, tmp_path / "service.py")
    viewer, service = free_port(), free_port()
    server = f"http://127.0.0.1:{viewer}"
    env = {"VIEWER_PORT": str(viewer), "VIEWER_DB": str(tmp_path / "viewer.db"), "PYTHONSAFEPATH": "1"}
    run = [str(environment / "python"), "-m", "uvicorn", "service:app", "--app-dir", str(tmp_path), "--port"]
    keys = {
        "LANGFUSE_PUBLIC_KEY": KEYS[0],
        "LANGFUSE_SECRET_KEY": KEYS[1],
        "LANGFUSE_HOST": server,
        "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
        "PYTHONSAFEPATH": "1",
    }
    with (
        start([str(environment / "agent-telemetry"), "viewer"], env, f"{server}/api/public/health", 180),
        start([*run, str(service)], keys, f"http://127.0.0.1:{service}/docs", 180),
    ):
        asked = {"message": "Hello?", "thread_id": "t-1"}
        answer = httpx.get(f"http://127.0.0.1:{service}/chat", params=asked, timeout=60, trust_env=False)
        assert answer.json() == "Hello, Ada."

        def recorded() -> bool:
            asked = httpx.get(f"{server}/api/public/v2/observations", auth=KEYS, timeout=10, trust_env=False)
            return "clerk" in asked.text

        until(recorded, 30)


def _run(*command: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_", "REQUESTS_"))
    }
    done = subprocess.run(
        command, cwd=Path(sys.prefix), env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
