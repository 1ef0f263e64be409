"""How a process may end, and which of its spans are lost: those that were not written yet, and no others."""

import signal
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from telemetry.testing import Receiver
from tests.processes import run_code

WRITTEN, LAST = 30, 5

PROGRAM = """
import os, signal, sys, time
import telemetry

def spans(name, number):
    for at in range(number):
        with telemetry.span(f"{name} {at}"):
            pass

def wait_until_written():
    while telemetry.stats()["process"]["committed"] < %d:
        time.sleep(0.01)

def main():
    telemetry.configure("life")
    spans("written", %d)
    wait_until_written()
    spans("last", %d)
%s

if __name__ == "__main__":
    main()
"""
NEXT = """
import os, time
import telemetry
telemetry.configure("next")
until = time.monotonic() + 200
# A file of a process that has ended goes as soon as all that is in it was sent.
while any(f"-{os.getpid()}-" not in name for name in os.listdir(os.environ["TELEMETRY_SPOOL_DIR"])):
    assert time.monotonic() < until, os.listdir(os.environ["TELEMETRY_SPOOL_DIR"])
    time.sleep(0.05)
telemetry.shutdown()
"""
ORDERLY = {
    "returns": "pass",
    "exits": "sys.exit(3)",
    "raises": "raise ValueError",
    "is interrupted": "signal.raise_signal(signal.SIGINT)",
    "leaves at once after a flush": "assert telemetry.flush(30); os._exit(0)",
    "is stopped with a handler": "signal.signal(signal.SIGTERM, lambda *_: sys.exit()); signal.raise_signal(15)",
}
SUDDEN = {
    "leaves at once": "os._exit(0)",
    "is stopped": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
}


def _run(code: str, receiver: Receiver, folder: Path, **environ: str) -> int:
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "TELEMETRY_SPOOL_DIR": str(folder)}
    done = run_code(code, env={**own, **environ}, seconds=300)
    sys.stdout.write(done.stderr)  # pytest shows it with a failure
    return done.returncode


def _arrived(ending: str, receiver: Receiver, folder: Path, **environ: str) -> list[str]:
    """The names of what arrived of a program that ends so, with what the next process on the folder has sent."""
    code = PROGRAM % (WRITTEN, WRITTEN, LAST, indent(dedent(ending), "    "))
    _run(code, receiver, folder, **environ)
    assert _run(NEXT, receiver, folder) == 0
    return sorted(span.name for span in receiver.spans)


ALL = sorted([f"written {at}" for at in range(WRITTEN)] + [f"last {at}" for at in range(LAST)])


@pytest.mark.parametrize("how", ORDERLY)
def test_an_orderly_end_loses_nothing(how: str, receiver: Receiver, tmp_path: Path) -> None:
    """Whatever ends Python itself, or is told to flush, without a word about tracing."""
    assert _arrived(ORDERLY[how], receiver, tmp_path) == ALL


@pytest.mark.parametrize("how", SUDDEN)
def test_a_sudden_end_loses_what_was_not_written(how: str, receiver: Receiver, tmp_path: Path) -> None:
    """At most what ended in the last moments; what was written is sent by the next process, once."""
    arrived = _arrived(SUDDEN[how], receiver, tmp_path)

    assert len(arrived) == len(set(arrived))
    assert {name for name in ALL if name.startswith("written")} <= set(arrived) <= set(ALL)


@pytest.mark.parametrize("how", SUDDEN)
def test_write_through_loses_nothing(how: str, receiver: Receiver, tmp_path: Path) -> None:
    """A span is on disk before the call that ends it returns."""
    assert _arrived(SUDDEN[how], receiver, tmp_path, TELEMETRY_SPOOL_WRITE_THROUGH="true") == ALL


WORKERS = """
for worker in range(3):
    if not os.fork():
        spans(f"worker-{worker}", 10)
        telemetry.shutdown()
        os._exit(0)
for _ in range(3):
    os.wait()
spans("after", 2)
"""


def test_workers_that_are_forked_send_their_own(receiver: Receiver, tmp_path: Path) -> None:
    """As gunicorn with --preload, Celery's pool and multiprocessing do: each span once, whoever made it."""
    workers = [f"worker-{worker} {at}" for worker in range(3) for at in range(10)]

    assert _arrived(WORKERS, receiver, tmp_path) == sorted([*ALL, *workers, "after 0", "after 1"])


def test_what_a_signal_does_stays_the_programs(receiver: Receiver, tmp_path: Path) -> None:
    """A program without a handler is ended by the signal, and its exit status says so."""
    code = PROGRAM % (WRITTEN, WRITTEN, LAST, "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")

    assert _run(code, receiver, tmp_path) == -signal.SIGTERM


SERVER = """
    import threading, uvicorn

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        spans("at the end", 2)
        await send({"type": "lifespan.shutdown.complete"})

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    server_stops = lambda: (time.sleep(1), os.kill(os.getpid(), signal.%s))
    threading.Thread(target=server_stops, daemon=True).start()
    server.run()
"""


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_a_server_of_others_loses_nothing(how: str, receiver: Receiver, tmp_path: Path) -> None:
    """Its application is not ours, and after SIGTERM uvicorn ends the process without Python's exit."""
    code = PROGRAM.replace("import telemetry", "import telemetry, uvicorn") % (WRITTEN, WRITTEN, LAST, SERVER % how)

    _run(code, receiver, tmp_path, OTEL_BSP_SCHEDULE_DELAY="3000")

    assert sorted(span.name for span in receiver.spans) == sorted([*ALL, "at the end 0", "at the end 1"])
