"""The real service over a real socket, for tests."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any

import jwt

from app.agents import AGENTS, Agent
from app.service import create_app
from app.settings import ServiceSettings
from tests.processes import serve


@contextmanager
def service(folder: Path, agents: Mapping[str, Agent] = AGENTS, **settings: Any) -> Iterator[str]:
    """The address of the service, its data in `folder`; settings by the names of their variables."""
    app = create_app(ServiceSettings.model_validate({"DATA_DIR": folder, "DEMO_PACE_S": 0, **settings}), agents)
    with serve(app) as url:
        yield url


def user_token(user: str, secret: str, **claims: Any) -> str:
    """A token of a user, valid for an hour."""
    return jwt.encode({"sub": user, "exp": time() + 3600, **claims}, secret, "HS256")
