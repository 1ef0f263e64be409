from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from app.models.models import Models, load_models
from tests.openai_server import OpenAIServer, openai_server


@pytest.fixture
async def checkpointer(tmp_path: Path) -> AsyncIterator[BaseCheckpointSaver]:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "threads.db")) as saver:
        yield saver


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with openai_server() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", running.key)
        yield running


@pytest.fixture(params=["demo", "openai:some-model"])
def models(request: pytest.FixtureRequest) -> Models:
    """The demo model, and a real client of a server that speaks OpenAI's dialect."""
    if request.param != "demo":
        request.getfixturevalue("server")
    return load_models(request.param)
