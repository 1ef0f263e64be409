"""Log records say which trace they belong to, and a program's own log calls work as before."""

import logging

import pytest

import telemetry
from telemetry.testing import Recorded, recording

logger = logging.getLogger(__name__)
IDS = ("otelTraceID", "otelSpanID", "otelTraceSampled")


@pytest.mark.parametrize("name", IDS)
def test_a_call_may_name_the_trace_itself(spans: Recorded, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """What a log call gives under one of our names stays; the others are the span's."""
    with telemetry.span("work") as span:
        logger.warning("hi", extra={name: "mine", "other": 1})
    found = caplog.records[-1].__dict__
    assert (found[name], found["other"]) == ("mine", 1)
    if name != "otelTraceID":
        assert found["otelTraceID"] == f"{span.get_span_context().trace_id:032x}"


def test_what_a_logger_refuses_it_still_refuses(spans: Recorded) -> None:
    """A name that is a record's own is refused as without tracing."""
    with pytest.raises(KeyError, match="overwrite 'message'"):
        logger.warning("hi", extra={"message": "mine"})  # noqa: G101 - that is the point


def test_nothing_stays_behind() -> None:
    """Once tracing has ended, records are made as before."""
    before = logging.getLogRecordFactory(), logging.Logger.makeRecord
    with recording():
        assert logging.Logger.makeRecord is not before[1]
    assert (logging.getLogRecordFactory(), logging.Logger.makeRecord) == before
