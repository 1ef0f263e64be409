"""The service as a process: its telemetry in all conditions, its start and its end."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

import pytest

from app.client import AgentClient, AgentError
from app.schema import ChatMessage, EndEvent, RunEvent, StreamEvent
from telemetry.testing import Receiver, span_tree
from tests.processes import ROOT, UNSET, Process, free_port, run, start, until


@contextmanager
def api(folder: Path, **environ: str) -> Iterator[tuple[Process, AgentClient]]:
    """A real API process with its data in `folder`."""
    url = f"http://127.0.0.1:{free_port()}"
    env = {"PORT": url.rsplit(":", 1)[1], "DATA_DIR": str(folder), "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    with start([sys.executable, "-m", "app"], env | environ, f"{url}/health") as process:
        yield process, AgentClient(url, "chatbot", user_id="ada")


def langfuse(receiver: Receiver) -> dict[str, str]:
    return {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-1", "LANGFUSE_HOST": receiver.endpoint}


def said(answer: ChatMessage) -> tuple[str, str]:
    return answer.type, answer.content


def test_spans_reach_langfuse(tmp_path: Path) -> None:
    """With keys and host alone the spans arrive at Langfuse's path, authorised, one whole tree."""
    with Receiver() as receiver:
        with api(tmp_path, DEMO_PACE_S="0", **langfuse(receiver)) as (_, client):
            client.invoke("What is 12*34?")
        spans = receiver.spans
    posts = [request for request in receiver.requests if request.method == "POST"]

    assert {request.path for request in posts} == {"/api/public/otel/v1/traces"}
    assert {request.headers["authorization"] for request in posts} == {"Basic cGstbGYtMTpzay1sZi0x"}
    assert {request.headers["x-langfuse-ingestion-version"] for request in posts} == {"4"}
    assert span_tree(spans).splitlines()[0].endswith("POST /{agent_id}/invoke SERVER")
    assert sum(line.startswith("^") or not line.startswith(" ") for line in span_tree(spans).splitlines()) == 1
    assert spans[0].resource["service.name"] == "agent-api"


def test_spans_reach_any_backend(tmp_path: Path) -> None:
    """The standard endpoint and headers alone move the spans elsewhere, and the keys do not follow."""
    with Receiver() as langfuse_here, Receiver() as receiver:
        elsewhere = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-team=blue",
            "TRACE_URL": "https://traces.example/{trace_id}",
        }
        with api(tmp_path, DEMO_PACE_S="0", **langfuse(langfuse_here), **elsewhere) as (_, client):
            client.invoke("Hello")
        assert receiver.spans
        assert not langfuse_here.spans

    assert {request.path for request in receiver.requests} == {"/v1/traces"}
    assert {request.headers["x-team"] for request in receiver.requests} == {"blue"}
    assert not any("authorization" in request.headers for request in receiver.requests)


def test_answers_are_the_same_whatever_telemetry_does(tmp_path: Path) -> None:
    """Off, on, refused and unreachable: the agent says the same."""
    answers = []
    with Receiver() as receiver:
        conditions: list[dict[str, str]] = [
            {},
            {"LANGFUSE_TRACING": "false", **langfuse(receiver)},
            langfuse(receiver),
            {**langfuse(receiver), "LANGFUSE_HOST": f"http://127.0.0.1:{free_port()}"},
        ]
        for number, environ in enumerate(conditions):
            with api(tmp_path / str(number), DEMO_PACE_S="0", **environ) as (_, client):
                answers.append(said(client.invoke("What is 12*34?")))
                if number == 1:
                    assert client.invoke("Hello").trace_id is None
                    assert not receiver.requests

    assert len(set(answers)) == 1


def test_sigterm_loses_no_span(tmp_path: Path) -> None:
    """A signal in the middle of three streams: each is told its end, and every span of theirs arrives."""
    told: list[list[StreamEvent]] = [[], [], []]

    def listen(client: AgentClient, events: list[StreamEvent], thread_id: str) -> None:
        with suppress(AgentError):
            for event in client.stream("Tell me a long story", thread_id=thread_id):
                events.append(event)  # noqa: PERF402 - watched while it grows

    with Receiver() as receiver:
        with api(tmp_path, DEMO_PACE_S="0.2", **langfuse(receiver)) as (process, client):
            listeners = [
                threading.Thread(target=listen, args=(client, events, f"t-{number}"))
                for number, events in enumerate(told)
            ]
            for listener in listeners:
                listener.start()
            until(lambda: all(len(events) > 5 for events in told))
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.wait(60) == -signal.SIGTERM  # uvicorn passes the signal on once it is done
            for listener in listeners:
                listener.join(60)
        spans = receiver.spans

    for events in told:
        assert isinstance(events[0], RunEvent)
        assert isinstance(events[-1], EndEvent)
        assert events[-1].status == "cancelled"
        tree = span_tree(span for span in spans if span.trace_id == events[0].trace_id)
        assert (
            tree.replace("^", "")
            == dedent("""
            POST /{agent_id}/stream SERVER
              turn AGENT
                stream
                chatbot
                  model
                    DemoModel LLM
        """).strip()
        )


def bare(**environ: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **UNSET, **environ}


def refused(**environ: str) -> str:
    """What a service that cannot start says, in one line, with these variables."""
    return only_line(*run("app", env=bare(**environ)))


def refused_from_nothing(**environ: str) -> str:
    """The same of a new interpreter, where a setting is looked at while modules are imported."""
    argv, env = [sys.executable, "-m", "app"], bare(**environ)
    ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    return only_line(ended.returncode, ended.stdout + ended.stderr)


def test_the_service_hands_the_interpreter_over_soon() -> None:
    """A thread that writes spans waits for it no longer than a millisecond for each busy one."""
    code = "import sys; from app.__main__ import main; sys.argv = ['app']; main(); print(sys.getswitchinterval())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=bare(PORT="none"),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert float(done.stdout) == 0.001


def test_what_the_service_consists_of_is_not_collected(tmp_path: Path) -> None:
    """A full collection visits what turns have made, and not each module again."""
    code = """
import gc, os, signal, threading, time
from app.__main__ import main

def stop_when_started():
    while not gc.get_freeze_count():
        time.sleep(0.05)
    print(gc.get_freeze_count() > 100_000, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_when_started, daemon=True).start()
main()
"""
    env = bare(PORT=str(free_port()), DATA_DIR=str(tmp_path), TELEMETRY_SPOOL_DIR=str(tmp_path / "spool"))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "True", done.stderr


def only_line(status: int, printed: str) -> str:
    [said] = [line for line in printed.splitlines() if not line.startswith("INFO")]
    assert status == 2
    return said


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"HOST": "0.0.0.0"}, "set AUTH_SECRET"),
        ({"LANGFUSE_PUBLIC_KEY": "pk"}, "set both or neither"),
        ({"MODEL": "nobody:gpt"}, "MODEL=nobody:gpt"),
        ({"LANGFUSE_SECRET_KY": "x"}, "did you mean LANGFUSE_SECRET_KEY?"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_MAX_QUEUE_SIZE": "9"}, "OTEL_BSP_* cannot be used"),
    ],
)
def test_a_bad_setting_refuses_the_start(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    """The process ends at once with one sentence, and without a traceback."""
    assert words in refused(PORT=str(free_port()), DATA_DIR=str(tmp_path), **environ)
    assert not (tmp_path / "service.db").exists()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_PROPAGATORS": "b3"}, "OTEL_PROPAGATORS names something that is not installed"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is not a limit"),
    ],
)
def test_a_bad_setting_of_the_sdk_refuses_the_start(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    """Nor is there a traceback of the SDK's, which reads its settings while it is imported."""
    assert words in refused_from_nothing(PORT=str(free_port()), DATA_DIR=str(tmp_path), **environ)
    assert not (tmp_path / "service.db").exists()


@pytest.mark.parametrize("name", ["folder", "folder/service.db", "folder/checkpoints.db", "folder/files"])
def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str) -> None:
    """Whatever stands in the way of the service's files is told by the name of the variable."""
    blocked = tmp_path / name
    blocked.parent.mkdir(exist_ok=True)
    blocked.mkdir() if blocked.suffix else blocked.touch()

    said = refused(PORT=str(free_port()), DATA_DIR=str(tmp_path / "folder"))
    assert said.startswith(f"DATA_DIR={tmp_path / 'folder'} cannot be used (")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://ada:s3cret@127.0.0.1:9/x", "DATABASE_URL cannot be used (connection failed"),
        ("postgresql://ada:s3cret@nobody.invalid/x", "DATABASE_URL cannot be used (failed to resolve host"),
        ("postgresql://ada:%zz-s3cret@127.0.0.1/x", "DATABASE_URL cannot be parsed"),
        ("postgresql://ada:1@s3cret@127.0.0.1/x", "DATABASE_URL cannot be parsed"),
        ("postgresql://ada:s3cret@127.0.0.1:port/x", "DATABASE_URL cannot be parsed"),
        ("postgresql://ada:1#s3cret@127.0.0.1/x", "DATABASE_URL cannot be parsed"),
        ("postgresql://ada:1[s3cret@127.0.0.1/x", "DATABASE_URL cannot be parsed"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path: Path, url: str, words: str) -> None:
    """What the driver says is told, but never the password."""
    said = refused(PORT=str(free_port()), DATA_DIR=str(tmp_path), DATABASE_URL=url)

    assert said.startswith(words)
    assert "s3cret" not in said


def test_a_store_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    """An address of files that nobody can read is refused at start."""
    said = refused(PORT=str(free_port()), DATA_DIR=str(tmp_path), FILES_URL="nowhere://x")

    assert said.startswith("FILES_URL=nowhere://x cannot be used (")


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    """A second process on SQLite's files is refused until the first is gone, however it ended."""
    with api(tmp_path) as (first, client):
        said = refused(PORT=str(free_port()), DATA_DIR=str(tmp_path))
        assert said.startswith(f"DATA_DIR={tmp_path} is in use by another process: ")
        assert "42" in client.invoke("What is 6 * 7?").content
        first.popen.kill()
        first.popen.wait(60)
        with api(tmp_path) as (_, client):
            assert "42" in client.invoke("What is 6 * 7?").content


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """Where others listen nothing is begun: not even the folder is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(PORT=str(taken.getsockname()[1]), DATA_DIR=str(tmp_path / "folder"))

    assert "cannot be listened on" in said
    assert "set HOST and PORT" in said
    assert not (tmp_path / "folder").exists()


def test_ctrl_c_ends_it_without_a_word(tmp_path: Path) -> None:
    """An interrupted service ends as one that was told to stop."""
    with api(tmp_path) as (process, _):
        process.popen.send_signal(signal.SIGINT)

        assert process.popen.wait(60) == 0
        assert "Traceback" not in process.log


def test_a_log_line_is_written_once_when_the_backend_is_away(tmp_path: Path) -> None:
    """An unreachable backend is told in the log, without a traceback and without repetition."""
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with api(tmp_path, DEMO_PACE_S="0", **away) as (process, client):
        for _ in range(3):
            client.invoke("Hello")
        process.stop()
        assert "Traceback" not in process.log
        assert len(process.log.splitlines()) < 10
