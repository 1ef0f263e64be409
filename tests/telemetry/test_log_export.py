"""The log records of a process over OTLP: off unless asked, redacted, with their traces. Each test is a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.testing import Receiver
from tests.otlp_signals import Signals, run_program
from tests.processes import free_port

SECRET = "sk-proj-Zx81hQ2mV0pLr5tYw9Kc3NbEa7DfGu6J"
PROGRAM = f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
import telemetry
telemetry.configure("logged")
log = logging.getLogger("shop")
with telemetry.span("work"):
    log.info("the key is %s", "{SECRET}", extra={{"order": 7, "note": "{SECRET}"}})
    try:
        raise ValueError("{SECRET}")
    except ValueError:
        log.exception("failed")
log.debug("below the level")
"""


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as running:
        yield running


def run(code: str, folder: Path, receiver: Receiver, **environ: str) -> str:
    """What the program prints."""
    return run_program(code, folder, receiver, **environ).stdout


def to(signals: Signals) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{signals.endpoint}/v1/logs"}


@pytest.mark.parametrize("end", ["", "telemetry.shutdown()", "assert telemetry.flush(30)"])
def test_records_are_sent_redacted(receiver: Receiver, signals: Signals, tmp_path: Path, end: str) -> None:
    """A record has its level, its logger's name, its trace and its extra, without secrets; what is printed stays."""
    resource = {"OTEL_RESOURCE_ATTRIBUTES": f"team={SECRET}"}
    printed = run(f"{PROGRAM}\n{end}", tmp_path, receiver, **to(signals), **resource)
    assert printed.count(SECRET) >= 2
    first, second = [record for record in signals.logs() if record.body.string_value.startswith(("the key", "failed"))]
    (span,) = receiver.wait()
    assert {record.trace_id.hex() for record in (first, second)} == {span.trace_id}
    assert {record.span_id.hex() for record in (first, second)} == {span.span_id}
    assert (first.severity_text, second.severity_text) == ("INFO", "ERROR")
    assert first.body.string_value == "the key is [redacted OpenAI key]" or "[redacted" in first.body.string_value
    extra = {each.key: each.value for each in first.attributes}
    assert extra["order"].int_value == 7
    assert "[redacted" in extra["note"].string_value
    failed = {each.key: each.value.string_value for each in second.attributes}
    assert failed["exception.type"] == "ValueError"
    assert "Traceback" in failed["exception.stacktrace"]
    assert not any(SECRET.encode() in request.SerializeToString() for request in signals.requests)
    assert signals.resources()[0]["service.name"] == "logged"
    scopes = [scope.scope.name for each in signals.requests for part in each.resource_logs for scope in part.scope_logs]
    assert set(scopes) >= {"shop"}


def test_logging_works_as_without(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """A program that sets logging up later, or never, prints what it would print; a filter's refusal counts."""
    code = """
        import logging, sys
        import telemetry
        telemetry.configure("logged")
        logging.getLogger("a").warning("to stderr")
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
        quiet = logging.getLogger("quiet")
        quiet.addFilter(lambda record: False)
        quiet.error("refused")
        logging.warning("to stdout")
        telemetry.shutdown()
    """
    assert run(code, tmp_path, receiver, **to(signals)) == "WARNING to stdout\n"
    sent = [record.body.string_value for record in signals.logs()]
    assert {"to stderr", "to stdout"} <= set(sent)
    assert "refused" not in sent


def test_metadata_only(receiver: Receiver, signals: Signals, tmp_path: Path) -> None:
    """Where no content may leave, a record is its level, its place, its trace and the class of its error."""
    run(PROGRAM, tmp_path, receiver, TELEMETRY_CONTENT="metadata-only", **to(signals))
    assert {record.body.string_value for record in signals.logs()} == {"[withheld]"}
    keys = {each.key for record in signals.logs() for each in record.attributes}
    assert keys == {"code.function.name", "code.line.number", "exception.type"}


def test_nothing_is_sent_or_imported_unless_asked(receiver: Receiver, tmp_path: Path) -> None:
    """An endpoint for spans alone gets no logs, and their SDK is not imported."""
    unwanted = ("opentelemetry.exporter", "telemetry.otel.logs_sdk")
    code = f"{PROGRAM}\nprint([each for each in {unwanted} if each in sys.modules])"
    assert run(code, tmp_path, receiver).endswith("[]\n")
    receiver.wait()
    assert {request.path for request in receiver.requests} == {"/v1/traces"}


def test_a_backend_that_is_down(receiver: Receiver, tmp_path: Path) -> None:
    """The program prints and ends as it does without, and does not export what the exporter says of it."""
    address = f"http://127.0.0.1:{free_port()}/v1/logs"
    printed = run(f"{PROGRAM}\ntelemetry.shutdown()", tmp_path, receiver, OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=address)
    assert "the key is" in printed
    assert len(receiver.spans) == 1
