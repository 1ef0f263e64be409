"""An instrumented app ends in order: its turns, its own lifespan, its spans."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request

import telemetry
from telemetry import Turn
from telemetry.testing import Recorded
from tests.processes import serve


def make_app(ended: list[str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        try:
            yield {"database": "open"}
        finally:
            ended.append("database closed")

    app = FastAPI(lifespan=lifespan)

    @app.get("/begin")
    async def begin(request: Request) -> str:
        turn = Turn[str]("slow", run_id=uuid4(), session_id="t-1")

        async def work(_: Turn[str]) -> None:
            await anyio.sleep(60)

        async def settle(turn: Turn[str]) -> None:
            ended.append(f"turn {turn.status}")

        turn.start(work, settle)
        return request.state.database

    telemetry.instrument(app)
    return app


@pytest.mark.parametrize("traced", [True, False])
def test_an_app_ends_in_order(request: pytest.FixtureRequest, traced: bool) -> None:
    """A turn under way ends while all that it needs is still there, with tracing or without; the state is kept."""
    spans: Recorded | None = request.getfixturevalue("spans") if traced else None
    ended: list[str] = []
    with serve(make_app(ended)) as url, telemetry.untraced():
        assert httpx.get(f"{url}/begin", timeout=60).json() == "open"

    assert ended == ["turn cancelled", "database closed"]
    if spans:
        assert {"turn", "GET /begin"} <= {span.name for span in spans.settled()}


def test_tasks_end_with_the_app(spans: Recorded) -> None:
    """A task that is still open is ended, as cancelled, before the last spans are sent."""
    with serve(make_app([])):
        task = telemetry.Task("never finished")
        task.start()

    assert task.result == "cancelled"
    assert "task never finished" in {span.name for span in spans.settled()}
