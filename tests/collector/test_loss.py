import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from telemetry.testing import Receiver
from telemetry.testing.receiver import Answer, Request
from tests import processes
from tests.collector.otelcol import Collector, span
from tests.collector.sender import Sender, lost

TRANSIENT = {"down": Receiver.reset, "429": (429, {"Retry-After": "1"}), "503": 503, "504": 504}


def in_turns(answers: Iterable[Answer]) -> Callable[[Request], Answer]:
    """A backend that answers so, over and over."""
    turns = itertools.cycle(answers)
    return lambda _: next(turns)


@pytest.mark.parametrize("config", ["stateless", "durable"])
def test_eight_kills_and_a_failing_backend_lose_nothing(config: str, backend: Receiver, tmp_path: Path) -> None:
    """With a backend that fails two times in three and eight SIGKILLs, every span that was answered arrives."""
    with Collector(config, backend.endpoint, tmp_path) as collector:
        sender = Sender(collector.endpoint, pause_s=0.1)
        backend.answer = in_turns([503, 200, Receiver.reset])
        with sender.running():
            for _ in range(8):
                time.sleep(0.15)
                collector.kill()
                collector.start()
        backend.answer = 200
        backend.wait(lambda spans: not lost(sender, spans), timeout=60)


@pytest.mark.parametrize("config", ["stateless", "durable"])
def test_backend_and_collector_both_dead_lose_nothing(config: str, backend: Receiver, tmp_path: Path) -> None:
    """While nobody listens at the backend's address the collector is killed; once both are there every span arrives."""
    nobody = f"http://127.0.0.1:{processes.free_port()}"
    with Collector(config, nobody, tmp_path) as collector:
        sender = Sender(collector.endpoint, total=100)
        with sender.running():
            time.sleep(0.3)
            collector.kill()
            time.sleep(0.3)
            collector.backend = backend.endpoint
            collector.start()
        backend.wait(lambda spans: not lost(sender, spans), timeout=60)


@pytest.mark.parametrize("outage", TRANSIENT)
def test_durable_answers_at_once_and_outlasts_outages(outage: str, backend: Receiver, tmp_path: Path) -> None:
    """Whatever a backend is down with, a sender without a spool is answered at once and loses nothing."""
    backend.answer = TRANSIENT[outage]
    with Collector("durable", backend.endpoint, tmp_path) as collector:
        sender = Sender(collector.endpoint, total=100)
        with sender.running():
            pass
        assert not backend.spans
        backend.answer = 200
        backend.wait(lambda spans: not lost(sender, spans), timeout=60)


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
def test_durable_drops_what_the_backend_refuses(status: int, backend: Receiver, tmp_path: Path) -> None:
    """These answers lose spans that a sender was told are safe; the collector counts them and takes no second try."""
    backend.answer = status
    with Collector("durable", backend.endpoint, tmp_path) as collector:
        assert collector.send(span("refused"), span("as well")) == 200
        counted = "otelcol_exporter_send_failed_spans"
        processes.until(lambda: collector.metric(counted) == 2)
        backend.answer = 200
        collector.send(span("next"))
        assert [s.name for s in backend.wait()] == ["next"]


@pytest.mark.parametrize(
    ("answer", "passed_on"),
    [(200, 200), (400, 400), (401, 401), (413, 500), (429, 429), (500, 500), (503, 503), (Receiver.reset, 503)],
)
def test_stateless_passes_the_backends_answer_on(
    answer: Answer, passed_on: int, backend: Receiver, tmp_path: Path
) -> None:
    """The sender hears what the backend said, so a spool can judge; too large and broken look alike."""
    backend.answer = answer
    with Collector("stateless", backend.endpoint, tmp_path) as collector:
        assert collector.send(span()) == passed_on


def test_a_torn_queue_must_be_moved_away(backend: Receiver, tmp_path: Path) -> None:
    """With a queue file that is torn the collector says so and ends; with the file moved away it runs again."""
    with Collector("durable", backend.endpoint, tmp_path) as collector:
        collector.send(span("before"))
        backend.wait()
        collector.kill()
        [queue] = (path for path in tmp_path.iterdir() if path.is_file())
        queue.write_bytes(b"\x00" * queue.stat().st_size)
        with pytest.raises(AssertionError, match="invalid database"):
            collector.start()
        queue.rename(tmp_path / "torn")
        collector.start()
        assert collector.send(span("after")) == 200
        backend.wait(lambda spans: "after" in {s.name for s in spans})


def test_tail_sampling_loses_what_it_holds(backend: Receiver, tmp_path: Path) -> None:
    """A span that waits for its trace's decision dies with the collector, although it was answered with 200."""
    with Collector("tail", backend.endpoint, tmp_path, {"COLLECTOR_TAIL_PERCENTAGE": "100"}) as collector:
        assert collector.send(span("held")) == 200
        collector.kill()
        collector.overlay = "processors::tail_sampling: {decision_wait: 1s}"
        collector.start()
        collector.send(span("next"))
        assert [s.name for s in backend.wait()] == ["next"]
