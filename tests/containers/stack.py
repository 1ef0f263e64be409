"""The compose stack on a daemon of the tests: what a person types, and what can be seen of it from outside."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import processes
from tests.containers.daemon import DOCKER, Daemon, run

PROJECT = "agent-telemetry-test"
SECRET = "thirty-two-characters-or-a-few-more"
KEYS = ("pk-lf-local", "sk-lf-planted-in-the-test")
FINISHED = "finished"


@dataclass
class Stack:
    """The stack of one `.env`."""

    engine: Daemon
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = {name: str(processes.free_port()) for name in ("PORT", "UI_PORT", "VIEWER_PORT", "COLLECTOR_PORT")}
        self.settings = {"AUTH_SECRET": SECRET, **ports, **self.settings}

    @property
    def service(self) -> str:
        """Where the service is published."""
        return f"http://127.0.0.1:{self.settings['PORT']}"

    @property
    def page(self) -> str:
        """Where the chat is published."""
        return f"http://127.0.0.1:{self.settings['UI_PORT']}"

    @property
    def viewer(self) -> str:
        """Where the viewer is published."""
        return f"http://127.0.0.1:{self.settings['VIEWER_PORT']}"

    def compose(self, *arguments: str, **more: str) -> str:
        """Return what docker-compose prints, with these settings in `.env`."""
        return run(self._argv(arguments, more), self._env())

    def refused(self, settings: Mapping[str, str]) -> str:
        """Return the complaint of docker-compose about a `.env` that holds no more than these settings."""
        env_file = self._write(settings)
        argv = ["docker-compose", "--env-file", str(env_file), "config"]
        return subprocess.run(
            argv, env=self._env(), cwd=processes.ROOT, capture_output=True, text=True, check=False
        ).stderr

    def wait_until_well(self, *services: str) -> None:
        """Return once the health check of each of these says that it is well."""
        for name in services:
            processes.until(
                lambda name=name: self.state(name)["Health"]["Status"] == "healthy",
                90,
                lambda name=name: self.logs(name),
            )

    def state(self, service: str) -> dict:
        """What the daemon knows of a service's container."""
        container = self.compose("ps", "-q", service).strip()
        return json.loads(self.engine.docker("inspect", container))[0]["State"]

    def logs(self, service: str) -> str:
        """The last words of a service."""
        return self.compose("logs", "--tail=40", service)

    def execute(self, service: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run a line of Python in a service's container."""
        container = self.compose("ps", "-q", service).strip()
        argv = [DOCKER, "exec", container, "python", "-c", code]
        return subprocess.run(argv, env=self.engine.env, capture_output=True, text=True, timeout=60, check=False)

    def tree(self, trace_id: str) -> str:
        """The trace as the viewer shows it, empty while it has none."""
        answer = httpx.get(f"{self.viewer}/project/local/traces/{trace_id}.txt", auth=KEYS, trust_env=False)
        return answer.text if answer.is_success else ""

    def _argv(self, arguments: tuple[str, ...], more: Mapping[str, str]) -> list[str]:
        env_file = self._write(self.settings | dict(more))
        return ["docker-compose", "--project-name", PROJECT, "--env-file", str(env_file), *arguments]

    def _write(self, settings: Mapping[str, str]) -> Path:
        env_file = self.folder / ".env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return env_file

    def _env(self) -> dict[str, str]:
        """The caller's own settings stay outside."""
        names = ("DOCKER_HOST", "COMPOSE_DOCKER_CLI_BUILD")
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), **{name: self.engine.env[name] for name in names}}
