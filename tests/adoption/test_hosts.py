"""Agents behind other web frameworks than FastAPI."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.adoption.harness import run

# How the request's span is called.
HOSTS = {
    "starlette": "POST /ask/{name}",
    "litestar": "POST /ask/{name}",
    "quart": "POST /ask/ada",
    "django": "POST /ask/ada",
    "flask": "POST /ask/<name>",
}
INSTRUMENTORS = {"flask": "opentelemetry.instrumentation.flask"}


@pytest.mark.parametrize("host", [name for name in HOSTS if find_spec(name)])
def test_a_request_is_a_trace_with_its_turn(host: str, tmp_path: Path) -> None:
    """`telemetry.instrument` takes the application of any of them; the answer is the same untraced."""
    if host in INSTRUMENTORS and not find_spec(INSTRUMENTORS[host]):
        pytest.skip(f"{INSTRUMENTORS[host]} is not installed")
    ran = run("hosts", tmp_path, HOST=host)
    assert ran.answer == "It is 408.\n"
    assert ran.orphans == []
    (trace,) = ran.traces
    assert trace.root
    assert (trace.root.span.name, trace.root.span.kind, trace.name) == (HOSTS[host], "SERVER", "clerk")
    assert (trace.root.input, trace.root.output) == ("What is 12*34?", "It is 408.")
    assert len(trace.named("turn")) == 1
    for each in trace.observations:
        assert (each.span.attributes["session.id"], each.span.attributes["user.id"]) == ("thread-7", "ada")
