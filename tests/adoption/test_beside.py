"""Beside other libraries that trace, or that bring parts of OpenTelemetry along, in either order."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.adoption.harness import Ran, run
from tests.adoption.test_langgraph import WAYS

# The module by which each is found; an SDK provider stands for all that use one.
MODULES = {
    "chromadb": "chromadb",
    "logfire": "logfire",
    "traceloop": "traceloop.sdk",
    "azure": "azure.monitor.opentelemetry",
    "google_adk": "google.adk",
    "ddtrace": "ddtrace",
    "langfuse": "langfuse",
}
# It presets gRPC, brings a provider along, and instruments FastAPI and HTTP clients by itself.
LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")


def installed(library: str) -> bool:
    try:
        return find_spec(MODULES[library]) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", [name for name in MODULES if installed(name)] or ["sdk"])
def test_it_works_beside(library: str, when: str, tmp_path: Path) -> None:
    """Each request is one whole trace with its turn, each span once, and the answers are the same untraced."""
    check(run("beside", tmp_path, BESIDE=f"{library} {when}"))


@pytest.mark.skipif(not LAUNCHER.exists(), reason="opentelemetry-distro is not installed")
def test_it_works_under_opentelemetry_instrument(tmp_path: Path) -> None:
    """A program that it starts has the same traces."""
    check(run("beside", tmp_path, str(LAUNCHER), sys.executable))


def check(ran: Ran) -> None:
    assert ran.orphans == []
    assert {trace.name for trace in ran.traces} >= {name for name in WAYS.values() if name}
    for way in WAYS:
        trace = ran.of_session(f"thread-{way}")
        assert len(trace.named("turn")) == 1
        assert trace.root
        assert (trace.root.input, trace.root.output) == ("What is 12*34?", "It is 408.")
        ids = [each.span.span_id for each in trace.observations]
        assert len(ids) == len(set(ids))
