"""The coding agent runs what it writes, and tells what came of it."""

from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver

from app.agents import load
from app.models.models import Models
from tests.app.agents.turns import results, say


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return tmp_path / "python" / "t"


async def test_it_runs_python(models: Models, checkpointer: BaseCheckpointSaver, folder: Path) -> None:
    """Code in the message is run, its output told, and its files are in the thread's folder."""
    messages = await say(
        load("coding", models, checkpointer), "run ```python\nopen('n', 'w').write('7')\nprint(6*7)\n```"
    )

    assert results(messages) == [("python_repl", "success", "42")]
    assert messages[-1].text == "The python_repl tool says: 42"
    assert (folder / "n").read_text() == "7"


async def test_code_that_fails_is_told(models: Models, checkpointer: BaseCheckpointSaver) -> None:
    """What the interpreter complains of reaches the person."""
    messages = await say(load("coding", models, checkpointer), "run `1/0`")

    assert messages[-1].text.startswith("The python_repl tool failed: Exit status 1.")
    assert messages[-1].text.endswith("ZeroDivisionError: division by zero")
