"""What tools, tasks and background runs look like, in every ending; the trees stand in `tests/golden`.

`GOLDEN=write python -m pytest tests/test_golden_tools.py` writes them anew.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import telemetry
from app.client import AgentClient
from telemetry.settings import Settings
from telemetry.testing import Recorded, recording, span_tree
from telemetry.testing.receiver import Receiver
from tests.background import api, called
from tests.processes import until
from tests.service import service
from tests.test_golden_trees import check, invoked, tree

TOOL = ("tool.success", "python.exit_status", "python.killed")
SHOWN = ("turn.status", "turn.tool_errors", "cancelled", *TOOL, "task.result")
RUN = ("turn.status", "turn.attempt", "status", "tool.success")
TOOLS = {
    "success": ("chatbot", "What is 12*34?"),
    "failure": ("chatbot", "What is 1/0?"),
    "failure, and a second try": ("research", "Read Trace."),
    "python, success": ("coding", "`6*7`"),
    "python, failure": ("coding", "`1/0`"),
    "python, killed": ("coding", "`while True: print('x' * 1000)`"),
}


@dataclass
class Stage:
    """Services over one recording: one of patience, and one of little."""

    spans: Recorded
    patient: str
    hasty: str


@pytest.fixture(scope="module", params=["openinference", "recorder"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder, settings = tmp_path_factory.mktemp("tools"), Settings.model_construct(langchain=request.param)
    with pytest.MonkeyPatch.context() as patch, recording(settings) as spans:
        patch.setenv("DATA_DIR", str(folder))
        with service(folder / "patient") as patient, service(folder / "hasty", TURN_TIMEOUT_S=6) as hasty:
            yield Stage(spans, patient, hasty)


def of_turn(stage: Stage, url: str, agent: str, message: str) -> str:
    with telemetry.suppress_instrumentation():
        shown = tree(stage.spans, invoked(AgentClient(url, agent), message, f"{agent}-{len(message)}"), SHOWN)
    # On a busy machine a task tells of more.
    return re.sub(r"(?m)^( *progress)(\n\1)+$", r"\1", shown)


@pytest.mark.parametrize("case", TOOLS)
def test_a_tool(stage: Stage, case: str) -> None:
    """A tool goes well, fails, or is killed by its limits: the span says which, and the turn counts it."""
    check("tools", case, of_turn(stage, stage.patient, *TOOLS[case]))


def test_a_tool_that_takes_too_long(stage: Stage) -> None:
    """The turn's time is over while the tool works: nothing is left open, and why its process was killed is told."""
    check("tools", "python, timeout", of_turn(stage, stage.hasty, "coding", "`import time; time.sleep(60)`"))


def test_a_task(stage: Stage) -> None:
    """A task stands below its tool; its beginning, its progress and its end below the task."""
    check("tasks", "success", of_turn(stage, stage.patient, "bg-task", "work for 1.5 seconds"))


def test_a_task_that_is_stopped(stage: Stage) -> None:
    """The turn's time is over in the middle of a task: it ends as cancelled, with what it had told."""
    check("tasks", "timeout", of_turn(stage, stage.hasty, "bg-task", "work for 60 seconds"))


def test_a_run_with_a_resume(tmp_path: Path) -> None:
    """A run killed in its tool is two traces: what the first had ended below its lost turn, and all of the second."""
    pytest.importorskip("dbos", reason="background runs need DBOS")
    seldom = {"HEARTBEAT_S": "60"}
    with Receiver() as receiver:
        with api(tmp_path, receiver, {**seldom, "STEP_PACE_S": "60"}) as first:
            run = first.submit("what is 1+1")
            until(lambda: called(tmp_path) and {"heartbeat", "model"} <= {span.name for span in receiver.spans}, 60)
            first.kill()
        with api(tmp_path, receiver, seldom) as second:
            done = second.over(run["run_id"])
    trees = [span_tree([s for s in receiver.spans if s.trace_id == trace], RUN) for trace in done["trace_ids"]]

    check("runs", "first attempt, killed", trees[0])
    check("runs", "second attempt", trees[1])
    (link,) = [link for span in receiver.spans if span.name == "turn" for link in span.links]
    assert link.trace_id == done["trace_ids"][0]
