"""A program that forks traced processes on demand: two hundred of them start in the time of a dozen.

It reads one order a line as JSON and answers each with one number: a process id, or an exit status.
"""

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import telemetry
from telemetry import pipeline
from telemetry.delivery import backoff, sender, spool
from telemetry.instrumentation.langchain import instrumentor

WARM = instrumentor  # what every process imports when it starts: here once for all


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(f"{_start(order) if 'run' in order else _wait(order['wait'])}\n")
        sys.stdout.flush()


def _start(order: dict[str, Any]) -> int:
    return os.fork() or _live(order)


def _wait(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def _live(order: dict[str, Any]) -> NoReturn:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        os.environ.update(order["env"])
        _hasten()
        if limit := order.get("file_limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        with suppress(SystemExit):
            telemetry.configure("chaos")
            _work(order)
        telemetry.shutdown()
        status = 0
    except Exception:  # noqa: BLE001 - the child must not come back as a second nursery
        traceback.print_exc()
    finally:
        os._exit(status)


def _hasten() -> None:
    """Make the waits fit the length of a test; what is decided stays the same."""
    backoff.FIRST_DELAY_S, backoff.MAX_DELAY_S, backoff.CONFIG_ERROR_DELAY_S = 0.05, 0.3, 0.3
    sender.IDLE_S = 0.2
    spool.ADOPT_EVERY = 1


def _work(order: dict[str, Any]) -> None:
    tracer = pipeline.tracer()
    for n in range(order["spans"]):
        if n == order.get("fork_at"):
            _fork(order, n)
        tracer.start_span(f"{order['run']}-{n}", attributes={"text": _text(order["size"])}).end()
        time.sleep(order["pace"])
    Path(order["log"]).with_suffix(".done").touch()
    if order["then"] == "wait":
        signal.pause()


def _fork(order: dict[str, Any], n: int) -> None:
    """Go on as two processes; the parent waits for the child's end."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    order.update(run=f"{order['run']}f", fork_at=None, spans=n, then="exit")
    _work(order)
    telemetry.shutdown()
    os._exit(0)


def _text(size: int) -> str:
    return random.randbytes(size // 2).hex()


if __name__ == "__main__":
    main()
