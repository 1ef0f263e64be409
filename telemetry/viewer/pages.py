"""The pages: the list of traces, a session, one trace, and the same trace as plain text."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from telemetry.tree import span_tree
from telemetry.viewer.access import StrangersKeys
from telemetry.viewer.messages import came_in, came_out
from telemetry.viewer.observation import Observation, Trace
from telemetry.viewer.plots import plots
from telemetry.viewer.render import page
from telemetry.viewer.session import Turn, later, turn
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store
from telemetry.viewer.summary import PLACE, Filters, Summary
from telemetry.viewer.timeline import rows

PAGE = 50
TURNS = 20

router = APIRouter(dependencies=[StrangersKeys])


@router.get("/")
def go_to_traces() -> Response:
    """Lead to the list of traces."""
    return RedirectResponse(f"/project/{PROJECT}/traces")


@router.get(f"/project/{PROJECT}/traces")
def show_traces(request: Request, filters: Annotated[Filters, Query()]) -> Response:
    """Show the newest traces that the filters want."""
    store = _store(request)
    found = store.latest(PAGE + 1, filters)
    traces = found[:PAGE]
    running = any(trace.state == "running" for trace in traces)
    return page(
        request,
        "traces.html",
        traces=traces,
        filters=filters,
        scores=store.scores_of([trace.trace_id for trace in traces]),
        plots=plots(traces[::-1]),
        older=traces[-1].place if len(found) > PAGE else "",
        live=0 if filters.before else _pace(running=running),
    )


@router.get(f"/project/{PROJECT}/session")
def show_session(
    request: Request,
    id: Annotated[str, Query(min_length=1)],  # noqa: A002 - the name in the address
    before: Annotated[str, Query(pattern=PLACE)] = "",
) -> Response:
    """Show a session as a conversation; its id may be anything, so that it stands in the query."""
    store = _store(request)
    found = store.latest(TURNS + 1, Filters(session=id, before=before))
    running = any(trace.state == "running" for trace in found)
    turns = _turns(store, found[:TURNS][::-1])
    return page(
        request,
        "session.html" if turns else "unknown.html",
        200 if turns else 404,
        what="session",
        id=id,
        session=store.session(id),
        turns=turns,
        later=later(turns),
        scores=[score for score in store.scores(session_id=id) if score.trace_id is None],
        plots=plots([each.summary for each in turns if each.talk]),
        older=found[TURNS - 1].place if len(found) > TURNS else "",
        before=before,
        running=running,
        live=0 if before else _pace(running=running),
    )


@router.get(f"/project/{PROJECT}/sessions/{{session_id:path}}")
def go_to_session(session_id: str) -> Response:
    """Lead from where Langfuse has its page of a session to ours."""
    return RedirectResponse(f"/project/{PROJECT}/session?" + urlencode({"id": session_id}))


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}.txt")
def show_text(request: Request, trace_id: str) -> Response:
    """Show a trace as an indented tree in plain text."""
    observations = _store(request).observations(trace_id=trace_id)
    if not observations:
        return PlainTextResponse("No spans of this trace have come yet. Reload in a moment.\n", 404)
    return PlainTextResponse(span_tree(each.span for each in observations) + "\n")


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}")
def show_trace(request: Request, trace_id: str, observation: str = "") -> Response:
    """Show a trace: its tree in time, and one of its observations in full."""
    store = _store(request)
    summary = store.trace(trace_id)
    if not (summary and (observations := store.observations(trace_id=trace_id))):
        return page(request, "unknown.html", 404, what="trace", id=trace_id, live=_pace(running=True))
    trace = Trace(trace_id, observations)
    shown = _shown(trace, observation)
    return page(
        request,
        "trace.html",
        trace=trace,
        summary=summary,
        rows=rows(trace),
        shown=shown,
        came_in=came_in(shown),
        came_out=came_out(shown),
        scores=store.scores(trace_id=trace_id),
        live=_pace(running=True) if summary.state == "running" else 0,
    )


def _turns(store: Store, traces: list[Summary]) -> list[Turn]:
    ids = [trace.trace_id for trace in traces]
    tools, scores = store.tools_of(ids), store.scores_of(ids)
    return [
        turn(trace, store.telling(trace.trace_id), tools[trace.trace_id], scores[trace.trace_id]) for trace in traces
    ]


def _pace(*, running: bool) -> int:
    """Return how long a page waits until it looks for news, in milliseconds."""
    return 1_000 if running else 5_000


def _shown(trace: Trace, wanted: str) -> Observation:
    chosen = next((each for each in trace.observations if each.id == wanted), None)
    return chosen or trace.root or trace.observations[0]


def _store(request: Request) -> Store:
    return request.app.state.store
