"""Run a program in a process of its own, with and without tracing."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from telemetry.testing import Receiver
from tests.adoption.model_server import Models, Reply, model_server
from tests.telemetry.langfuse_rules import Trace, traces

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "frameworks"
JOBS = EXAMPLES.parent / "jobs"
TIMEOUT_S = 600
OFF = {"LANGFUSE_TRACING": "false"}


@dataclass(frozen=True)
class Ran:
    """What a traced program printed, what it logged, and its traces."""

    answer: str
    log: str
    traces: list[Trace]

    def of_session(self, session: str) -> Trace:
        """Return the one trace of a session."""
        (found,) = [trace for trace in self.traces if _sessions(trace) == {session}]
        return found

    @property
    def orphans(self) -> list[str]:
        """The names of spans whose parent never arrived."""
        known = {each.span.span_id for trace in self.traces for each in trace.observations}
        return [
            each.span.name
            for trace in self.traces
            for each in trace.observations
            if each.span.parent_id and each.span.parent_id not in known
        ]


def run(program: str, spool: Path, *command: str, **env: str) -> Ran:
    """Run a program traced, and check that it prints the same untraced."""
    with Receiver() as receiver:
        traced = _start(PROGRAMS / f"{program}.py", command, {**keys(receiver, spool), **env})
        spans = receiver.spans
    assert traced.stdout == _untraced(program, command, tuple(env.items()))
    return Ran(traced.stdout, traced.stderr, traces(spans))


def run_example(name: str, replies: Sequence[Reply], spool: Path, **env: str) -> Ran:
    """Run an example of docs/examples/frameworks traced, against a model that gives these replies, and untraced."""
    program = EXAMPLES / f"{name}.py"
    with model_server(replies) as models:
        untraced = _start(program, (), {**addresses(models, spool), **env, **OFF})
    with Receiver() as receiver:
        with model_server(replies) as models:
            traced = _start(program, (), {**addresses(models, spool), **keys(receiver, spool), **env})
        spans = receiver.spans
    assert traced.stdout == untraced.stdout
    return Ran(traced.stdout, traced.stderr, traces(spans))


def inherited(env: dict[str, str]) -> dict[str, str]:
    """Return the variables of a program: these, and those of the tests that configure no tracing."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "LANGFUSE_"))}
    # The project's root, or the folder that the matrix copies the tests to; there `telemetry` is the installed wheel.
    return {**others, "PYTHONPATH": str(Path(__file__).parents[2]), **env}


def keys(receiver: Receiver, spool: Path) -> dict[str, str]:
    """Where spans are sent to, and where they wait."""
    return {
        "LANGFUSE_HOST": receiver.endpoint,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
        "LANGFUSE_SECRET_KEY": "sk-lf-1",
        "TELEMETRY_SPOOL_DIR": str(spool),
    }


def addresses(models: Models, home: Path) -> dict[str, str]:
    """Where the clients of models' providers look for their address, with a key, and none of their own telemetry."""
    return {
        "OPENAI_BASE_URL": f"{models.url}/v1",
        "OPENAI_API_KEY": "key",
        "ANTHROPIC_BASE_URL": models.url,
        "ANTHROPIC_API_KEY": "key",
        "GOOGLE_GEMINI_BASE_URL": models.url,
        "GOOGLE_API_KEY": "key",
        "CREWAI_DISABLE_TELEMETRY": "true",
        "CREWAI_TRACING_ENABLED": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "HOME": str(home),
    }


@cache
def _untraced(program: str, command: tuple[str, ...], env: tuple[tuple[str, str], ...]) -> str:
    return _start(PROGRAMS / f"{program}.py", command, {**dict(env), **OFF}).stdout


def _start(program: Path, command: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [*(command or [sys.executable]), str(program)]
    done = subprocess.run(
        line,
        env=inherited(env),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def _sessions(trace: Trace) -> set[object]:
    return {each.span.attributes.get("session.id") for each in trace.observations}
