"""The service as a process: its telemetry in all conditions, and its end."""

import signal
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
from tests.processes import Process, free_port, start, until


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
        with api(tmp_path, DEMO_PACE_S="0.05", **langfuse(receiver)) as (process, client):
            listeners = [
                threading.Thread(target=listen, args=(client, events, f"t-{number}"))
                for number, events in enumerate(told)
            ]
            for listener in listeners:
                listener.start()
            until(lambda: all(len(events) > 5 for events in told))
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.wait(20) == -signal.SIGTERM  # uvicorn passes the signal on once it is done
            for listener in listeners:
                listener.join(10)
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


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"HOST": "0.0.0.0"}, "set AUTH_SECRET"),
        ({"LANGFUSE_PUBLIC_KEY": "pk"}, "set both or neither"),
        ({"MODEL": "nobody:gpt"}, "MODEL=nobody:gpt"),
        ({"LANGFUSE_SECRET_KY": "x"}, "did you mean LANGFUSE_SECRET_KEY?"),
    ],
)
def test_a_bad_setting_refuses_the_start(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    """The process ends at once with one sentence, and without a traceback."""
    with pytest.raises(AssertionError) as ended, api(tmp_path, **environ):
        pass

    printed = [line for line in str(ended.value).split(":\n", 1)[1].splitlines() if not line.startswith("INFO")]
    assert len(printed) == 1
    assert words in printed[0]
    assert not (tmp_path / "service.db").exists()


def test_a_log_line_is_written_once_when_the_backend_is_away(tmp_path: Path) -> None:
    """An unreachable backend is told in the log, without a traceback and without repetition."""
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with api(tmp_path, DEMO_PACE_S="0", **away) as (process, client):
        for _ in range(3):
            client.invoke("Hello")
        process.stop()
        assert "Traceback" not in process.log
        assert len(process.log.splitlines()) < 10
