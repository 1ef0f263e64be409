"""Sampling at the head: decided once by the trace id, told to the client, and free of charge when it says no."""

from pathlib import Path

import httpx
import pytest
from langchain_core.tracers.base import BaseTracer

import telemetry
from app.client import AgentClient
from app.schema import RunEvent
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.service import service


def sampled(url: str) -> bool:
    run = next(iter(AgentClient(url, "chatbot").stream("What is 12*34?")))
    assert isinstance(run, RunEvent)
    assert run.sampled in (True, False)
    return run.sampled is True


def test_sampled_out_says_so_and_serialises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is left out has its ids, no span, and no callback that looks at a message."""
    looked: list[str] = []
    for name in ("on_chain_start", "on_chat_model_start", "on_tool_start"):
        monkeypatch.setattr(BaseTracer, name, lambda *_, **__: looked.append("at it"))
    with recording(Settings.model_validate({"LANGFUSE_SAMPLING_RATE": 0})) as spans, service(tmp_path) as url:
        answer = AgentClient(url).invoke("What is 12*34?")
        assert not sampled(url)

    assert "408" in answer.content
    assert answer.trace_id
    assert not spans.get_finished_spans()
    assert not looked


def test_the_service_follows_the_chat(tmp_path: Path) -> None:
    """Whatever the chat's process decided for a trace holds in the service too."""
    with recording(Settings.model_validate({"LANGFUSE_SAMPLING_RATE": 0.5})) as spans, service(tmp_path) as url:
        decisions = []
        for _ in range(20):
            with telemetry.span("chat turn"):
                here = telemetry.current_trace()
                assert here
                decisions.append(here.sampled)
                assert sampled(url) == here.sampled
        names = [span.name for span in spans.settled()]

    assert names.count("chat turn") == names.count("turn") == sum(decisions)


@pytest.mark.parametrize(("flags", "kept"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_callers_flag_is_a_bit(tmp_path: Path, flags: str, kept: bool) -> None:
    """The sampled flag of a caller is one bit among others."""
    parent = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"
    with recording() as spans, service(tmp_path) as url:
        with telemetry.suppress_instrumentation():
            httpx.post(f"{url}/invoke", json={"message": "Hello"}, headers={"traceparent": parent})
        assert ("turn" in [span.name for span in spans.settled()]) is kept
