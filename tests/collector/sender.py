"""Senders that keep a span until it was accepted, and no longer: what a collector loses is what it answered for."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from telemetry.export import otlp
from tests.collector.otelcol import HEADERS, span


class Sender:
    """Sends spans in small requests from threads, each one again and again until it is answered with 200."""

    def __init__(self, endpoint: str, total: int = 400, per_request: int = 5, pause_s: float = 0.0) -> None:
        self.url = f"{endpoint}/v1/traces"
        self.pause_s = pause_s
        spans = [span(**{"output.value": "x" * 2_000}) for _ in range(total)]
        self.sent = {one.span_id for one in spans}
        self._requests = [spans[start : start + per_request] for start in range(0, total, per_request)]
        self._ended = threading.Event()

    @contextmanager
    def running(self, threads: int = 4) -> Iterator[None]:
        """The threads send inside; everything was accepted on leaving."""
        shares = [self._requests[number::threads] for number in range(threads)]
        workers = [threading.Thread(target=self._send_all, args=(share,)) for share in shares]
        for worker in workers:
            worker.start()
        try:
            yield
            for worker in workers:
                worker.join(60)
            assert not any(worker.is_alive() for worker in workers), "the collector did not accept everything"
        finally:
            self._ended.set()

    def _send_all(self, requests: Sequence[Sequence[otlp.Span]]) -> None:
        with httpx.Client(timeout=15, trust_env=False) as client:
            for spans in requests:
                body = b"".join(map(otlp.encode, map(otlp.RedactedSpan.of, spans)))
                while not self._accepted(client, body) and not self._ended.is_set():
                    time.sleep(0.05)
                time.sleep(self.pause_s)

    def _accepted(self, client: httpx.Client, body: bytes) -> bool:
        try:
            return client.post(self.url, content=body, headers=HEADERS).status_code == 200
        except httpx.TransportError:
            return False


def lost(sender: Sender, spans: Sequence[otlp.Span]) -> int:
    """How many of the sent spans are not among these."""
    return len(sender.sent - {one.span_id for one in spans})
