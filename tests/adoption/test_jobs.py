"""Agents in jobs and notebooks: the examples of docs/examples/jobs."""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportMissingModuleSource=false
# The queues are in an environment of their own.

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from telemetry.testing import Receiver
from tests.adoption.harness import JOBS, OFF, TIMEOUT_S, Ran, addresses, inherited, keys
from tests.adoption.model_server import Say, model_server
from tests.telemetry.langfuse_rules import traces

QUESTIONS = ["What is 12*34?", "And 2*3?", "Thank you"]
ANSWERS = ["It is 408.", "It is 6.", "You are welcome."]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server of the tests' own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed here: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert any("Ready to accept connections" in line for line in server.stdout)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def celery_answers(url: str) -> list[str]:
    from celery import Celery

    app = Celery(broker=url, backend=url)
    sent = [app.send_task("celery_worker.answer", (each, "thread-7", "ada")) for each in QUESTIONS]
    return [task.get(timeout=TIMEOUT_S) for task in sent]


def rq_answers(url: str) -> list[str]:
    from redis import Redis
    from rq import Queue

    queue = Queue("clerk", connection=Redis.from_url(url))
    sent = [queue.enqueue("rq_worker.answer", each, "thread-7", "ada") for each in QUESTIONS]
    deadline = time.monotonic() + TIMEOUT_S
    while not all(job.get_status() in ("finished", "failed") for job in sent) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [job.return_value() for job in sent]


# One task at a time, in a process of the pool or one of its own.
CELERY = ["celery", "--app", "celery_worker", "worker", "--concurrency", "1", "--without-mingle", "--without-gossip"]
WORKERS: dict[str, tuple[Callable[[str], list[str]], list[str]]] = {
    "celery": (celery_answers, CELERY),
    "rq": (rq_answers, ["rq_worker"]),
}


@contextmanager
def worker(command: list[str], env: dict[str, str]) -> Iterator[None]:
    """Run a worker until the block is left; it ends as a deployment ends it."""
    program = [sys.executable, "-m", *command]
    with subprocess.Popen(program, cwd=JOBS, env=inherited(env), stdout=subprocess.DEVNULL) as running:
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(60)


def answered(queue: str, url: str, spool: Path, **env: str) -> list[str]:
    ask, command = WORKERS[queue]
    with model_server([Say(each) for each in ANSWERS]) as models:
        known = {
            **addresses(models, spool),
            "BROKER_URL": url,
            "RQ_REDIS_URL": url,
            "PYTHONDONTWRITEBYTECODE": "1",
            **env,
        }
        with worker(command, known):
            return ask(url)


@pytest.mark.parametrize("queue", [name for name in WORKERS if find_spec(name)])
def test_each_job_is_a_trace(queue: str, redis: str, tmp_path: Path) -> None:
    """With question, answer, session and user; nothing is lost when the worker ends, and the answers are the same."""
    untraced = answered(queue, redis, tmp_path, **OFF)
    with Receiver() as receiver:
        traced = answered(queue, redis, tmp_path, **keys(receiver, tmp_path / "spool"))
        ran = Ran("", "", traces(receiver.spans))

    assert traced == untraced == ANSWERS
    assert ran.orphans == []
    assert [trace.name for trace in ran.traces] == ["clerk"] * 3
    roots = [trace.root for trace in ran.traces if trace.root]
    assert {said(root.input): said(root.output) for root in roots} == dict(zip(QUESTIONS, ANSWERS, strict=True))
    for trace in ran.traces:
        for each in trace.observations:
            assert (each.span.attributes["session.id"], each.span.attributes["user.id"]) == ("thread-7", "ada")


@pytest.mark.skipif(not find_spec("nbclient"), reason="nbclient is not installed")
def test_a_notebook(tmp_path: Path) -> None:
    """The trace of a cell arrives while the notebook is open, and a cell may be run again."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(JOBS / "notebook.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3")
    with model_server([Say(ANSWERS[0]), Say(ANSWERS[0])]) as models, Receiver() as receiver:
        env = {**addresses(models, tmp_path), **keys(receiver, tmp_path / "spool"), "IPYTHONDIR": str(tmp_path)}
        with client.setup_kernel(env=inherited(env)):
            for cell in [*cells, *cells]:
                client.execute_cell(cell, notebook.cells.index(cell))
            receiver.wait(lambda spans: sum(span.name == "clerk" for span in spans) == 2)
            ran = Ran("", "", traces(receiver.spans))

    assert cells[-1].outputs[0].text == f"{ANSWERS[0]}\n"
    assert ran.orphans == []
    assert [(trace.name, trace.root and said(trace.root.output)) for trace in ran.traces] == [("clerk", ANSWERS[0])] * 2


def said(messages: object) -> str:
    """Return the words of the last of these messages."""
    return str(messages[-1]["content"] if isinstance(messages, list) else messages)
