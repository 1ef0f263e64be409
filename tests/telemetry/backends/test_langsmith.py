"""Scores as LangSmith's feedback: its real client against a server on loopback."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import telemetry
from telemetry.delivery import backoff, scores
from telemetry.settings import Settings, load_settings
from telemetry.testing import Recorded, recording
from tests.processes import serve, until

TRACE, RUN = "0af7651916cd43dd8448eb211c80319c", "1e7f2c50-9a3b-4c1d-8e2f-0123456789ab"


class LangSmith:
    """What of LangSmith's API takes feedback; `status` is its answer to all, `upserts` its way with known ids."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.status: int | None = None
        self.upserts = True
        self.app = FastAPI()
        self.app.middleware("http")(self._door)
        self.app.get("/sessions")(self._projects)
        self.app.post("/feedback")(self._create)
        self.app.patch("/feedback/{feedback_id}")(self._update)
        self.app.delete("/feedback/{feedback_id}")(self._delete)

    async def _door(self, request: Request, go_on: Any) -> Response:
        self.asked.append((request.method, request.url.path, request.headers.get("x-api-key")))
        return JSONResponse({"detail": "no"}, self.status) if self.status else await go_on(request)

    async def _projects(self, name: str) -> list[dict[str, str | None]]:
        known = {"tenant_id": PROJECT, "start_time": "2026-01-01T00:00:00Z", "reference_dataset_id": None}
        return [{"id": PROJECT, "name": name, **known}]

    async def _create(self, request: Request) -> Response:
        given = await request.json()
        if given["id"] in self.kept and not self.upserts:
            return JSONResponse({"detail": "there is one"}, 409)
        self.kept[given["id"]] = given
        return JSONResponse(given)

    async def _update(self, feedback_id: str, request: Request) -> Response:
        self.kept[feedback_id] |= await request.json()
        return JSONResponse(self.kept[feedback_id])

    async def _delete(self, feedback_id: str) -> Response:
        return JSONResponse({}, 200 if self.kept.pop(feedback_id, None) else 404)


PROJECT = "5b1f8a52-6f0e-4e5c-9f57-27d2a6b1c0de"


@pytest.fixture
def langsmith(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LangSmith]:
    for name in ("FIRST_DELAY_S", "MAX_DELAY_S"):
        monkeypatch.setattr(backoff, name, 0.05)
    monkeypatch.setattr(scores, "IDLE_S", 0.05)
    server = LangSmith()
    with serve(server.app) as url:
        for name, value in {
            "LANGSMITH_API_KEY": "lsv2_test",
            "LANGSMITH_ENDPOINT": url,
            "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
        }.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def spans(langsmith: LangSmith) -> Iterator[Recorded]:
    with recording(load_settings()) as recorded:
        yield recorded


def place(value: float | str | None, seconds: float = 10, **more: Any) -> str:
    posted = telemetry.score("stars", value, trace_id=TRACE, run_id=RUN, user_id="ada", **more)
    assert posted
    until(lambda: posted.places()["langsmith"] != "queued" or not seconds, seconds or 1)
    return posted.places()["langsmith"]


@pytest.mark.parametrize("upserts", [True, False])
def test_feedback_on_the_run(spans: Recorded, langsmith: LangSmith, upserts: bool) -> None:
    """A score is feedback on its run; a change of mind changes it, whichever way the server does that."""
    langsmith.upserts = upserts
    assert [place(1), place(0.5, comment="Hm.")] == ["sent", "sent"]

    [kept] = langsmith.kept.values()
    assert (kept["session_id"], kept["start_time"][:4]) == (PROJECT, str(datetime.now(UTC).year))
    assert (kept["run_id"], kept["key"], kept["score"], kept["comment"]) == (RUN, "stars", 0.5, "Hm.")
    assert {key for _, _, key in langsmith.asked} == {"lsv2_test"}


def test_words_are_values(spans: Recorded, langsmith: LangSmith) -> None:
    """A word is a value and no number."""
    place("good")

    assert next(iter(langsmith.kept.values()))["value"] == "good"


def test_feedback_is_taken_back(spans: Recorded, langsmith: LangSmith) -> None:
    """None takes the feedback back."""
    assert [place(1), place(None)] == ["sent", "sent"]

    assert langsmith.kept == {}


def test_it_waits_for_langsmith(
    spans: Recorded, langsmith: LangSmith, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """What LangSmith does not take now it gets later; each attempt is no traceback in the log."""
    langsmith.status = 503
    posted = telemetry.score("stars", 1, trace_id=TRACE, run_id=RUN)
    until(lambda: len(langsmith.asked) > 3)
    assert posted
    assert posted.places()["langsmith"] == "queued"
    langsmith.status = None

    until(lambda: langsmith.kept)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_one_place_does_not_wait_for_the_other(spans: Recorded, langsmith: LangSmith) -> None:
    """Langfuse may be down, LangSmith has the score all the same."""
    posted = telemetry.score("stars", 1, trace_id=TRACE, run_id=RUN)
    until(lambda: langsmith.kept)

    assert posted
    until(lambda: posted.places() == {"langfuse": "queued", "langsmith": "sent"})


def test_what_langsmith_refuses(spans: Recorded, langsmith: LangSmith) -> None:
    """What LangSmith refuses for good is put aside, and the answer says why."""
    langsmith.status = 422

    assert place(1).startswith("skipped: it was refused: 422")


def test_it_makes_no_trace(spans: Recorded, langsmith: LangSmith) -> None:
    """Neither our spans nor LangSmith's own runs come of feedback."""
    place(1)

    assert spans.settled() == ()
    assert {(method, path) for method, path, _ in langsmith.asked} == {("GET", "/sessions"), ("POST", "/feedback")}


def test_without_its_key_it_is_not_asked() -> None:
    """LangSmith is a backend only where its key is set."""
    with recording(Settings.model_construct()):
        posted = telemetry.score("stars", 1, trace_id=TRACE, run_id=RUN)

    assert posted
    assert set(posted.receipts) == {"langfuse"}
