"""A viewer that takes its time with scores, as a Langfuse server does."""

from pathlib import Path

import httpx

from tests.langfuse_server import SCORES, Langfuse, langfuse_server
from tests.processes import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
SCORE = {"id": "s-1", "traceId": TRACE, "name": "mood", "value": 1}


def values(server: Langfuse) -> list[float]:
    return [score["value"] for score in server.scores(TRACE)]


def test_a_score_is_read_and_deleted_when_it_is_due(tmp_path: Path) -> None:
    """Both are accepted at once, and seen later."""
    with langfuse_server(tmp_path, score_delay_s=0.2, deletion_interval_s=0.2) as server:
        assert httpx.post(server.url + SCORES, json=SCORE, auth=server.keys).is_success
        until(lambda: values(server) == [1])

        assert httpx.delete(f"{server.url}{SCORES}/s-1", auth=server.keys).is_success
        until(lambda: values(server) == [])


def test_nothing_that_was_accepted_is_lost_with_the_viewer(tmp_path: Path) -> None:
    """What is not due yet when it ends is done then, in the order of what would have come first."""
    with langfuse_server(tmp_path, score_delay_s=600, deletion_interval_s=10_000_000) as server:
        for number in (1, 2):
            httpx.post(server.url + SCORES, json=SCORE | {"id": f"s-{number}", "value": number}, auth=server.keys)
        httpx.delete(f"{server.url}{SCORES}/s-2", auth=server.keys)
        assert values(server) == []

    with langfuse_server(tmp_path) as server:
        assert values(server) == [1]
