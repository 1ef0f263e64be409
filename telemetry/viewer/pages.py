"""The pages: the list of traces, one trace, and the same trace as plain text."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry.tree import span_tree
from telemetry.viewer.access import StrangersKeys
from telemetry.viewer.messages import came_in, came_out
from telemetry.viewer.observation import Observation, Trace
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import BEFORE_ALL, Store
from telemetry.viewer.timeline import WIDTH, rows

HERE = Path(__file__).parent
PAGE = 50

Before = Annotated[int, Query(ge=0, le=BEFORE_ALL)]

router = APIRouter(dependencies=[StrangersKeys])


@router.get("/")
def go_to_traces() -> Response:
    """Lead to the list of traces."""
    return RedirectResponse(f"/project/{PROJECT}/traces")


@router.get(f"/project/{PROJECT}/traces")
def show_traces(request: Request, before: Before = BEFORE_ALL) -> Response:
    """Show the newest traces, or the newest before a time."""
    store = _store(request)
    found = store.latest(PAGE, before)
    scores = store.scores_of([trace.trace_id for trace in found])
    older = found[-1].start if len(found) == PAGE else None
    return _page("traces.html", traces=found, scores=scores, older=older, newest=before == BEFORE_ALL)


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}.txt")
def show_text(request: Request, trace_id: str) -> Response:
    """Show a trace as an indented tree in plain text."""
    observations = _store(request).observations(trace_id=trace_id)
    if not observations:
        return PlainTextResponse("No spans of this trace have come yet. Reload in a moment.\n", 404)
    return PlainTextResponse(span_tree(each.span for each in observations) + "\n")


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}")
def show_trace(request: Request, trace_id: str, observation: str | None = None) -> Response:
    """Show a trace: its tree in time, and one of its observations in full."""
    store = _store(request)
    if not (observations := store.observations(trace_id=trace_id)):
        return _page("unknown.html", 404, trace_id=trace_id)
    trace = Trace(trace_id, observations)
    shown = _shown(trace, observation)
    return _page(
        "trace.html",
        trace=trace,
        rows=rows(trace),
        shown=shown,
        came_in=came_in(shown),
        came_out=came_out(shown),
        scores=store.scores(trace_id=trace_id),
    )


def _shown(trace: Trace, wanted: str | None) -> Observation:
    chosen = next((each for each in trace.observations if each.id == wanted), None)
    return chosen or trace.root or trace.observations[0]


def _store(request: Request) -> Store:
    return request.app.state.store


def _page(template: str, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(_templates.get_template(template).render(project=PROJECT, **values), status)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _when(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)


_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"duration": _duration, "when": _when, "pretty": _pretty}
_templates.globals |= {"WIDTH": WIDTH}
