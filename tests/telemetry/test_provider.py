"""Setting tracing up: once, whoever else has a provider, in every worker. Each test is a process of its own."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from telemetry.testing import Receiver
from tests.processes import ROOT, UNSET


def run(code: str, folder: Path, **environ: str) -> str:
    """What the program prints."""
    env = {**UNSET, "TELEMETRY_SPOOL_DIR": str(folder), "PYTHONWARNINGS": "error", **environ}
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def to(receiver: Receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}


def names(receiver: Receiver) -> list[str]:
    return sorted(span.name for span in receiver.spans)


def test_configured_again_and_again(receiver: Receiver, tmp_path: Path) -> None:
    """A script that reruns sets tracing up once: no span is sent twice, nothing is logged."""
    code = """
        import telemetry
        for name in ("agent-ui", "agent-ui", "somebody-else"):
            telemetry.configure(name)
            with telemetry.span("work"):
                pass
        telemetry.shutdown()
        telemetry.shutdown()
    """
    assert run(code, tmp_path, **to(receiver)) == ""

    assert names(receiver) == ["work"] * 3
    assert {span.resource["service.name"] for span in receiver.spans} == {"agent-ui"}


def test_a_provider_of_somebody_else(receiver: Receiver, tmp_path: Path) -> None:
    """A provider that is there already stays, with its own resource, and its spans reach our backend too."""
    code = """
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": "theirs"})))
        import telemetry
        telemetry.configure("ours")
        with trace.get_tracer("them").start_as_current_span("theirs"), telemetry.span("ours"):
            pass
        telemetry.shutdown()
    """
    assert "already set" in run(code, tmp_path, **to(receiver))

    assert names(receiver) == ["ours", "theirs"]
    assert {span.resource["service.name"] for span in receiver.spans} == {"theirs"}


def test_no_thread_imports_beside_the_program(receiver: Receiver, tmp_path: Path) -> None:
    """Links and scores find their SDK loaded: two threads that import the same at once see half of a module."""
    code = """
        import sys, threading, telemetry
        telemetry.configure("agent-api")
        loaded = set(sys.modules)
        with telemetry.span("work"):
            telemetry.score("stars", 5).places(60)  # until it was asked once
        for thread in threading.enumerate():
            if thread.name == "telemetry-links":
                thread.join()
        telemetry.shutdown()
        print(*{name.split(".")[0] for name in set(sys.modules) - loaded} - set(sys.stdlib_module_names))
    """
    keys = {"LANGFUSE_HOST": receiver.endpoint, "LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}
    imported = run(code, tmp_path, **keys)

    assert imported.split() == []
    assert any("scores" in request.path for request in receiver.requests)


def test_the_environment_names_the_service(receiver: Receiver, tmp_path: Path) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what the code says."""
    code = """
        import telemetry
        telemetry.configure("code")
        with telemetry.span("work"):
            pass
        telemetry.shutdown()
    """
    resource = {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "team=blue,service.version=7"}
    run(code, tmp_path, **to(receiver), **resource, LANGFUSE_RELEASE="1", LANGFUSE_ENVIRONMENT="staging")

    found = receiver.spans[0].resource
    assert (found["service.name"], found["team"], found["service.version"]) == ("shop", "blue", "7")
    assert (found["deployment.environment.name"], found["langfuse.release"]) == ("staging", "1")


def test_forked_workers(receiver: Receiver, tmp_path: Path) -> None:
    """A process that forks after the start loses none of its spans, and none of its children's."""
    code = """
        import os
        import telemetry
        telemetry.configure("workers")
        with telemetry.span("before"):
            pass
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                with telemetry.span(f"in {number}"):
                    pass
                telemetry.shutdown()
                os._exit(0)
            children.append(child)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        with telemetry.span("after"):
            pass
        telemetry.shutdown()
    """
    run(code, tmp_path, **to(receiver))

    assert names(receiver) == ["after", "before", "in 0", "in 1", "in 2"]


@pytest.mark.parametrize(
    "environ", [{"LANGFUSE_TRACING": "false"}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}]
)
def test_off_is_off(receiver: Receiver, tmp_path: Path, environ: dict[str, str]) -> None:
    """With tracing off no thread runs, nothing is wrapped, nothing is sent, and every call still works."""
    code = """
        import threading
        import httpx, langchain_core.callbacks
        import telemetry
        before = httpx.HTTPTransport.handle_request, langchain_core.callbacks.BaseCallbackManager.__init__
        telemetry.configure("off")
        with telemetry.scope(session_id="s"), telemetry.span("work") as span:
            telemetry.event("event")
            telemetry.capture_exception(ValueError("x"))
            assert telemetry.current_trace() is None
        assert not span.is_recording()
        assert before == (httpx.HTTPTransport.handle_request, langchain_core.callbacks.BaseCallbackManager.__init__)
        assert threading.active_count() == 1
        telemetry.shutdown()
    """
    run(code, tmp_path, **to(receiver), **environ)

    assert not receiver.requests


def test_the_console(tmp_path: Path) -> None:
    """OTEL_TRACES_EXPORTER=console prints the spans."""
    code = """
        import telemetry
        telemetry.configure("shell")
        with telemetry.span("to be read"):
            pass
        telemetry.shutdown()
    """
    assert '"name": "to be read"' in run(code, tmp_path, OTEL_TRACES_EXPORTER="console")


def test_guarded_logs(tmp_path: Path) -> None:
    """A secret in a log line, in its arguments or in its traceback is not written."""
    code = """
        import logging
        import telemetry
        logging.basicConfig()
        telemetry.guard_logs()
        key = "sk-proj-" + "a1B2" * 12
        logging.error("the key is %s", key)
        try:
            raise ValueError(f"refused: {key}")
        except ValueError:
            logging.exception("it failed")
    """
    printed = run(code, tmp_path)

    assert "the key is [redacted" in printed
    assert "refused: [redacted" in printed
    assert "a1B2" not in printed
