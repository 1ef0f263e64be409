"""The doctor, run as people run it, before backends that fail as backends do."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry import doctor
from telemetry.delivery.http import Response
from telemetry.delivery.store import SPAN, SpoolStore
from telemetry.doctor import explain
from telemetry.settings import Settings
from telemetry.testing.receiver import Receiver
from tests import processes
from tests.langfuse_server import langfuse_server
from tests.processes import free_port


def run(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    environ = {"PATH": os.environ["PATH"], "TELEMETRY_SPOOL_DIR": str(folder / "spool"), **env}
    return processes.run("telemetry", *arguments, env=environ, cwd=folder)


def test_a_backend_that_works_is_found_well(receiver: Receiver, tmp_path: Path) -> None:
    """The settings with their origin, no secret, one test trace, exit code 0."""
    (tmp_path / ".env").write_text("LANGFUSE_RELEASE=r7\n")
    code, said = run(
        tmp_path,
        "doctor",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="x-key=s3cret",
        TRACE_URL="http://viewer/{trace_id}",
    )
    assert code == 0, said
    assert "LANGFUSE_RELEASE = r7 (.env)" in said
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT = {receiver.endpoint} (environment)" in said
    assert "s3cret" not in said
    [span] = receiver.spans
    assert span.name == "telemetry doctor"
    assert f"See http://viewer/{span.trace_id}" in said


@pytest.mark.parametrize("lists", [True, False])
def test_a_langfuse_is_tried_with_a_score_and_a_file(tmp_path: Path, lists: bool) -> None:
    """A score is made, read and deleted, and a file uploaded; the report says in what form the server takes scores."""
    with langfuse_server(tmp_path) as server:
        server.lists = lists
        code, said = run(tmp_path, "doctor", **server.env)
        assert code == 0, said
        assert f"It accepts scores, {'in lists' if lists else 'one at a time'}" in said
        assert "It accepts files." in said
        assert "It can be read back" in said
        assert server.get("/api/public/v3/scores")["data"] == []
        server.status = 403
        code, said = run(tmp_path, "doctor", **server.env, TELEMETRY_MEDIA="false")
    assert code == 1
    assert "It does not accept scores: 403" in said
    assert "Files in spans are not sent" in said


def test_tracing_that_is_off_is_an_error(tmp_path: Path) -> None:
    """Nothing would be recorded: the exit code tells."""
    code, said = run(tmp_path, "doctor")
    assert code == 1
    assert "Tracing is off" in said


def test_printed_spans_are_no_error(tmp_path: Path) -> None:
    """Who asks for the console gets spans there, and is not told that tracing is off."""
    code, said = run(tmp_path, "doctor", OTEL_TRACES_EXPORTER="console")
    assert (code, "Spans are printed" in said, "off" in said) == (0, True, False), said


def test_settings_that_cannot_be_served_are_said_in_one_sentence(tmp_path: Path) -> None:
    """The doctor refuses what the service would refuse."""
    code, said = run(tmp_path, "doctor", LANGFUSE_PUBLIC_KEY="pk")
    assert code == 2
    assert said.count("\n") == 1


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_PROPAGATORS", "b3"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc"), ("OTEL_PYTHON_CONTEXT", "nobody")],
)
def test_what_the_sdk_fails_over_is_said_in_one_sentence(tmp_path: Path, where: str, name: str, value: str) -> None:
    """A variable that the SDK cannot be imported with is refused like any other, wherever it was set."""
    if where == ".env":
        (tmp_path / ".env").write_text(f"{name}={value}\n")
    code, said = run(tmp_path, "doctor", **({name: value} if where == "environment" else {}))
    assert (code, said.count("\n"), said.split()[0]) == (2, 1, name), said


def test_empty_variables_of_the_sdk_are_unset(receiver: Receiver, tmp_path: Path) -> None:
    """What a compose file passes on without a value keeps nothing from starting."""
    empty = dict.fromkeys(["OTEL_PROPAGATORS", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"], "")
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, **empty)
    assert code == 0, said


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    """An address where nobody listens is named."""
    url = f"http://127.0.0.1:{free_port()}"
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert code == 1
    assert f"Nothing answers at {url}/v1/traces" in said


def test_a_wrong_path_is_answered_with_the_right_one(receiver: Receiver, tmp_path: Path) -> None:
    """A 404 names the path at which the same host takes traces."""
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.endpoint + "/otel")
    assert code == 1
    assert f"{receiver.endpoint}/v1/traces would be correct" in said


def test_the_path_of_langfuse_is_found_too(receiver: Receiver, tmp_path: Path) -> None:
    """A Langfuse that was set as a plain OTLP endpoint is recognised by where it takes traces."""
    receiver.answer = lambda request: 200 if request.path.startswith("/api/public") else 404
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert code == 1
    assert f"{receiver.endpoint}/api/public/otel/v1/traces would be correct" in said


def test_a_login_page_is_no_backend(receiver: Receiver, tmp_path: Path) -> None:
    """A 200 with a web page is an error, in plain words."""
    receiver.answer = 200, {"Content-Type": "text/html; charset=utf-8"}
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert code == 1
    assert f"{receiver.endpoint}/v1/traces answers with a web page (200), and accepted nothing" in said


SENTENCES: list[tuple[Response, str]] = [
    (Response(401, "no"), "does not accept these keys"),
    (Response(403, "no"), "does not accept these keys"),
    (Response(404, "no"), "Nothing accepts traces at"),
    (Response(405, "no"), "Nothing accepts traces at"),
    (Response(413, "no"), "client_max_body_size"),
    (Response(400, "no"), "is it an OTLP/HTTP endpoint?"),
    (Response(429, "no"), "limits the rate"),
    (Response(500, "no"), "is broken at the moment"),
    (Response(None, "TLS failed: self-signed certificate"), "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    (Response(None, "no connection: refused"), "Nothing answers at"),
    (Response(None, "no connection: BadStatusLine"), "looks like a gRPC port"),
]


@pytest.mark.parametrize(("answer", "words"), SENTENCES)
def test_every_answer_is_put_in_plain_words(answer: Response, words: str) -> None:
    """What it means and what to do, in one sentence that names the address."""
    said = explain(answer, Settings.model_validate({"otlp_endpoint": "http://backend:4318"}))
    assert words in said
    assert "http://backend:4318/v1/traces" in said


def _serve_once(reply: Callable[[socket.socket], object]) -> tuple[str, threading.Thread]:
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with server:
            connection, _ = server.accept()
            with connection:
                reply(connection)

    thread = threading.Thread(target=answer)
    thread.start()
    return f"127.0.0.1:{server.getsockname()[1]}", thread


def test_a_grpc_port_is_recognised(tmp_path: Path) -> None:
    """A server of HTTP/2 answers with its settings frame, which is no HTTP/1 status."""
    where, thread = _serve_once(lambda peer: peer.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\r\n") or peer.recv(9))
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{where}")
    thread.join()
    assert code == 1
    assert "looks like a gRPC port" in said


def test_a_port_without_tls_is_recognised(tmp_path: Path) -> None:
    """https to a port that speaks none is told from a backend that is away."""
    where, thread = _serve_once(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{where}")
    thread.join()
    assert code == 1
    assert "TLS to" in said


@pytest.mark.parametrize(
    ("env", "warned"),
    [
        ({"LANGFUSE_SAMPLING_RATE": "0"}, True),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, True),
        ({"OTEL_TRACES_SAMPLER": "always_on", "LANGFUSE_SAMPLING_RATE": "0"}, False),
        ({"LANGFUSE_SAMPLING_RATE": "0.1"}, False),
    ],
)
def test_a_share_of_nothing_is_warned_of(receiver: Receiver, tmp_path: Path, env: dict[str, str], warned: bool) -> None:
    """The test trace arrives whatever the sampler says: the doctor tells that no other will."""
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, **env)
    assert (code, "No trace that starts here is recorded" in said) == (0, warned), said


def test_double_instrumentation_is_warned_of(receiver: Receiver, tmp_path: Path) -> None:
    """Whoever records the same calls again is named."""
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, LANGSMITH_OTEL_ENABLED="true")
    assert code == 0
    assert "LANGSMITH_OTEL_ENABLED is set" in said


def test_a_spool_that_cannot_be_written_is_an_error(receiver: Receiver, tmp_path: Path) -> None:
    """Where spans would be kept in memory only the doctor says so and fails, whatever the backend answers."""
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "spool")
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint, TELEMETRY_SPOOL_DIR=folder)
    assert code == 1
    assert f"{folder} cannot be written (Not a directory)" in said
    assert "Set TELEMETRY_SPOOL_DIR" in said


def test_looking_at_the_spool_leaves_nothing(receiver: Receiver, tmp_path: Path) -> None:
    """A folder that is not there yet is not made: it may be another user who runs the service."""
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert (code, "cannot be written" in said) == (0, False)
    assert not (tmp_path / "spool").exists()


def test_a_spool_that_does_not_drain_is_warned_of(receiver: Receiver, tmp_path: Path) -> None:
    """Old spans in the folder are a symptom, whatever this backend answers now."""
    file = SpoolStore.create(tmp_path / "spool", "elsewhere")
    file.append(SPAN, [(1_700_000_000.0, b"old")])
    file.close()
    code, said = run(tmp_path, "doctor", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert code == 0
    assert "The spool does not drain: 1 spans wait" in said
    code, said = run(tmp_path, "spool", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert (code, f"{file.name}  1 spans, 3 bytes" in said, "(for another backend)" in said) == (0, True, True), said


def _bury(folder: Path, endpoint: str) -> None:
    """What a process leaves whose one span was refused for good."""
    from telemetry.delivery.writer import destination

    file = SpoolStore.create(folder / "spool", destination(Settings.model_validate({"otlp_endpoint": endpoint})))
    _, body = doctor._test_trace(Settings.model_validate({"otlp_endpoint": endpoint}))
    file.append(SPAN, [(4_000_000_000.0, body)])
    file.replace_with_stub(file.take(SPAN, 1, 1)[0], "413 too large", None)
    file.close()


def test_dead_letters_are_shown_and_sent_again(receiver: Receiver, tmp_path: Path) -> None:
    """`spool` shows them with the reason, `spool retry` sends them, and then they are gone."""
    _bury(tmp_path, receiver.endpoint)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    code, said = run(tmp_path, "spool", **env)
    assert code == 0
    assert "413 too large" in said
    assert run(tmp_path, "spool", "retry", **env) == (0, "1 dead letters are queued again\n")
    assert [span.name for span in receiver.spans] == ["telemetry doctor"]
    assert run(tmp_path, "spool", **env) == (0, "")


def test_dead_letters_can_be_purged(receiver: Receiver, tmp_path: Path) -> None:
    """`spool purge` forgets them; nothing is sent."""
    _bury(tmp_path, receiver.endpoint)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    assert run(tmp_path, "spool", "purge", **env) == (0, "1 dead letters deleted\n")
    assert "dead letter" not in run(tmp_path, "spool", **env)[1]
    assert receiver.requests == []


def test_retrying_while_the_backend_is_down_loses_nothing(receiver: Receiver, tmp_path: Path) -> None:
    """The letters wait in the folder for the next process."""
    _bury(tmp_path, receiver.endpoint)
    receiver.answer = 503
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    assert run(tmp_path, "spool", "retry", **env)[0] == 0
    assert "1 spans" in run(tmp_path, "spool", **env)[1]
