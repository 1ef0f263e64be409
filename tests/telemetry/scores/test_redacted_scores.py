"""Whatever a score is given, it is taken in, and no secret of it leaves."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import telemetry
from telemetry.settings import load_settings
from telemetry.testing import recording
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
KEY = "ghp_" + "aB3dE6gH9j" * 3 + "aB3dE6"


@dataclass
class Holder:
    """A dataclass of a program."""

    text: str


class Model(BaseModel):
    """A model of a program."""

    text: str


class Unwritable:
    """It cannot be written."""

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


METADATA: dict[str, Callable[[], Any]] = {
    "set": lambda: {KEY},
    "dataclass": lambda: Holder(KEY),
    "model": lambda: Model(text=KEY),
    "path": lambda: Path("/x") / KEY,
    "exception": lambda: ValueError(KEY),
    "bytes": lambda: KEY.encode(),
    "number that is none": lambda: float("nan"),
    "object": Unwritable,
    "generator": lambda: (n for n in range(3)),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Langfuse]:
    with langfuse_server(tmp_path) as langfuse:
        for name, value in langfuse.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TELEMETRY_SPOOL_DIR", str(tmp_path / "spool"))
        yield langfuse


def arrived(server: Langfuse) -> dict[str, Any]:
    until(lambda: server.scores(TRACE))
    (score,) = server.scores(TRACE)
    return score


@pytest.mark.parametrize("make", METADATA.values(), ids=METADATA)
def test_metadata_of_any_type_is_taken_and_redacted(make: Callable[[], Any], server: Langfuse, tmp_path: Path) -> None:
    """No value of a score's metadata is an error to the caller, and no secret in it reaches disk or backend."""
    with recording(load_settings()):
        telemetry.score("mood", 1, trace_id=TRACE, metadata={"m": make(), "deep": [{"m": make()}]})
        on_disk = b"".join(path.read_bytes() for path in (tmp_path / "spool").glob("scores*") if path.exists())
        assert KEY.encode() not in on_disk
        assert KEY not in json.dumps(arrived(server))


def test_the_name_of_a_score_is_redacted(server: Langfuse) -> None:
    """A name that a caller made up may hold a secret as well."""
    with recording(load_settings()):
        telemetry.score(f"mood of {KEY}", 1, trace_id=TRACE)
        assert arrived(server)["name"] == "mood of [redacted key]"


def test_a_value_that_is_text_is_content(server: Langfuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where content does not leave, a score of text goes without it, and without a name that is a sentence."""
    monkeypatch.setenv("TELEMETRY_CONTENT", "metadata-only")
    with recording(load_settings()):
        telemetry.score("what I would say to my doctor", "Dear doctor", trace_id=TRACE)
        assert "doctor" not in json.dumps(arrived(server))
