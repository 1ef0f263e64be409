"""Send the demo's message and show its trace."""

from dataclasses import dataclass
from uuid import uuid4

import httpx

import telemetry
from app.client import AgentClient
from app.demo.processes import attempts
from app.demo.settings import DemoError
from app.schema import EndEvent, ErrorEvent, MessageEvent, RunEvent
from telemetry.context import shows_turn

ARRIVAL_SECONDS = 20


@dataclass(frozen=True)
class TurnResult:
    """The run of a turn, and its answer."""

    run: RunEvent
    answer: str


def send_message(client: AgentClient, message: str) -> TurnResult:
    """Send one message on a new thread, traced as the chat page does, and return the result."""
    thread_id = f"demo-{uuid4().hex[:8]}"
    with telemetry.scope(session_id=thread_id, agent="chatbot"), telemetry.span("chat turn") as span, shows_turn():
        span.set_attribute("input.value", message)
        run, answer, completed = None, "", False
        for event in client.stream(message, thread_id=thread_id):
            match event:
                case RunEvent():
                    run = event
                case MessageEvent() if event.content.type == "ai":
                    answer = event.content.content or answer
                case ErrorEvent():
                    raise DemoError(f"The turn failed: {event.message} (trace {event.trace_id})")
                case EndEvent():
                    completed = event.status == "completed"
        if run is None or not completed:
            raise DemoError("The turn did not complete.")
        span.set_attribute("output.value", answer)
        return TurnResult(run, answer)


def show_trace(run: RunEvent, viewer_url: str | None) -> bool:
    """Print the run's trace, from the viewer if there is one; return False if it is not complete there."""
    if run.trace_id is None:
        print("Tracing is off: this turn has no trace.\n")
    elif run.sampled is False:
        print("This turn was not sampled: it has no trace.\n")
    elif viewer_url:
        return _show_tree(viewer_url, run.trace_id)
    else:
        print(f"trace   {run.trace_url or run.trace_id}")
    return True


def trace_page(viewer_url: str, trace_id: str) -> str:
    """Return the address of a trace's page in the viewer."""
    return f"{viewer_url}/project/local/traces/{trace_id}"


def _show_tree(viewer_url: str, trace_id: str) -> bool:
    url = trace_page(viewer_url, trace_id)
    tree = ""
    with telemetry.suppress_instrumentation():
        for _ in attempts(ARRIVAL_SECONDS):
            response = httpx.get(f"{url}.txt", timeout=5, trust_env=False)
            tree = response.text.rstrip() if response.is_success else ""
            if is_whole(tree):
                break
    print(tree or "The viewer has not received the trace.")
    print(f"\ntrace   {url}\nviewer  {viewer_url}")
    return is_whole(tree)


def is_whole(tree: str) -> bool:
    """Return whether the tree has the turn as its only root, with the service's spans below it."""
    lines = tree.splitlines()
    roots = [line for line in lines if not line.startswith(" ")]
    return roots == ["chat turn"] and any(line.endswith(" SERVER") for line in lines)
