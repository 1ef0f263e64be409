"""The real service over a real socket, for tests."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.agents import AGENTS, Agent
from app.service import create_app
from app.settings import Settings
from tests.processes import serve


@contextmanager
def service(folder: Path, agents: Mapping[str, Agent] = AGENTS, **settings: Any) -> Iterator[str]:
    """The address of the service, its data in `folder`; settings by the names of their variables."""
    app = create_app(Settings.model_validate({"DATA_DIR": folder, "DEMO_PACE_S": 0, **settings}), agents)
    with serve(app) as url:
        yield url
