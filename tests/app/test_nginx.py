"""Streams behind a real nginx with its defaults: what the agent says arrives when it is said."""

from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse

from tests.nginx import nginx
from tests.service import service

SITES = {
    "defaults": "",
    "http_1.0": "proxy_http_version 1.0;",
    "gzip": "gzip on; gzip_types text/event-stream; gzip_min_length 0;",
}


@pytest.mark.parametrize("site", SITES)
def test_events_arrive_while_the_turn_goes_on(tmp_path: Path, site: str) -> None:
    """The first word is there before the last one is said, and each event has a number."""
    body = {"message": "Tell me a story of 60 words", "thread_id": "t-1"}
    with (
        service(tmp_path, DEMO_PACE_S=0.1) as direct,
        nginx(tmp_path, direct, SITES[site]) as url,
        httpx.Client(timeout=60) as http,
        connect_sse(http, "POST", f"{url}/stream", json=body) as source,
    ):
        events = source.iter_sse()
        first = [next(events) for _ in range(2)]
        status = httpx.get(f"{direct}/threads/t-1").json()["status"]
        rest = [event for event in events if event.data]
    assert status == "running"
    assert [event.id for event in [*first, *rest[:-1]]] == [str(number + 1) for number in range(len(first + rest) - 1)]
    assert rest[-1].data == "[DONE]"
    assert len(rest) > 60


def test_events_of_a_background_run_arrive_while_it_goes_on(tmp_path: Path) -> None:
    """A run that is followed through nginx says what it does when it does it."""
    with (
        service(tmp_path) as direct,
        nginx(tmp_path, direct, "") as url,
        httpx.Client(timeout=60) as http,
    ):
        run_id = http.post(f"{url}/bg-task/runs", json={"message": "work for 2 seconds"}).json()["run_id"]
        with connect_sse(http, "GET", f"{url}/runs/{run_id}/events") as source:
            next(event for event in source.iter_sse() if event.data)
            assert httpx.get(f"{direct}/runs/{run_id}").json()["status"] == "running"
