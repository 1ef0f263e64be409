"""The pages: the lists of traces, sessions and users, a session, one trace, and the same trace as a file."""

import time
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from telemetry.testing.tree import span_tree
from telemetry.viewer.access import KeysUnlessLoopback
from telemetry.viewer.cards import document_cards, tool_cards
from telemetry.viewer.figures import HOUR_S, merged
from telemetry.viewer.graph import graph
from telemetry.viewer.messages import input_content, output_content
from telemetry.viewer.observation import Observation, Trace
from telemetry.viewer.otlp_json import otlp_json
from telemetry.viewer.overview import BUCKETS_S, HEIGHT, SLOT, charts, first_second, grouped, start_link
from telemetry.viewer.plots import plots
from telemetry.viewer.render import page
from telemetry.viewer.session import SessionTurn, followers, session_turn
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store
from telemetry.viewer.summary import CURSOR, SINCE, TraceFilters, TraceSummary
from telemetry.viewer.timeline import Axis, tree_rows, waited_for

PAGE = 50
TURNS = 20
# How many names of what a trace waited for are shown.
WAITED = 4
GROUP_CURSOR = r"^([0-9]{1,19}-.+)?$"
MISSING = "No spans of this trace have come yet. Reload in a moment.\n"

router = APIRouter(dependencies=[KeysUnlessLoopback])


@router.get("/")
def go_to_traces() -> Response:
    """Redirect to the list of traces."""
    return RedirectResponse(f"/project/{PROJECT}/traces")


@router.get(f"/project/{PROJECT}/traces")
def show_traces(request: Request, filters: Annotated[TraceFilters, Query()]) -> Response:
    """Show the newest traces that match the filters."""
    store = _store(request)
    found = store.latest(PAGE + 1, filters)
    traces = found[:PAGE]
    running = any(trace.running for trace in traces)
    return page(
        request,
        "traces.html",
        traces=traces,
        filters=filters,
        since=SINCE,
        facets=store.facets(filters),
        scores=store.scores_of([trace.trace_id for trace in traces]),
        plots=plots(traces if filters.order else traces[::-1]),
        older=traces[-1].cursor_in(filters.order) if len(found) > PAGE else "",
        # The list may be empty because none of the traces is a turn.
        others=bool(not traces and not filters.all and store.latest(1, filters.model_copy(update={"all": "1"}))),
        live=0 if filters.before else _pace(running=running),
    )


@router.get(f"/project/{PROJECT}/overview")
def show_overview(request: Request, since: Literal["", "1h", "24h", "7d"] = "24h") -> Response:
    """Show the figures of the last period: turns and failures, latency, cost, models, tools, versions and scores."""
    store = _store(request)
    start = first_second(since, time.time())
    size = BUCKETS_S[since] if since == "1h" else HOUR_S
    parts = store.periods(size, start)
    buckets = parts if since == "1h" else grouped(parts, since)
    return page(
        request,
        "overview.html",
        since=since,
        periods=SINCE,
        behind=start_link(start),
        filters=TraceFilters(),
        whole=merged(buckets.values()),
        charts=charts(buckets, since),
        scores=store.score_figures(start * 10**9),
        SLOT=SLOT,
        HEIGHT=HEIGHT,
        live=_pace(running=False),
    )


@router.get(f"/project/{PROJECT}/sessions")
def show_sessions(request: Request, before: Annotated[str, Query(pattern=GROUP_CURSOR)] = "") -> Response:
    """Show the sessions, the most recently active first."""
    return _groups_page(request, "session", before)


@router.get(f"/project/{PROJECT}/users")
def show_users(request: Request, before: Annotated[str, Query(pattern=GROUP_CURSOR)] = "") -> Response:
    """Show the users, the most recently active first."""
    return _groups_page(request, "user", before)


@router.get(f"/project/{PROJECT}/session")
def show_session(
    request: Request,
    id: Annotated[str, Query(min_length=1)],  # noqa: A002 - the name in the address
    before: Annotated[str, Query(pattern=CURSOR)] = "",
) -> Response:
    """Show a session as a conversation; its id is in the query, because it may contain any character."""
    store = _store(request)
    found = store.latest(TURNS + 1, TraceFilters(session=id, before=before, all="1"))
    running = any(trace.running for trace in found)
    turns = _turns(store, found[:TURNS][::-1])
    return page(
        request,
        "session.html" if turns else "unknown.html",
        200 if turns else 404,
        what="session",
        id=id,
        session=store.session(id),
        turns=turns,
        followers=followers(turns),
        scores=store.scores_of_session(id),
        chat=_chat_link(request, id),
        plots=plots([each.summary for each in turns if each.is_turn]),
        older=found[TURNS - 1].cursor if len(found) > TURNS else "",
        before=before,
        running=running,
        live=0 if before else _pace(running=running),
    )


@router.get(f"/project/{PROJECT}/sessions/{{session_id:path}}")
def go_to_session(session_id: str) -> Response:
    """Redirect from Langfuse's address of a session to ours."""
    return RedirectResponse(f"/project/{PROJECT}/session?" + urlencode({"id": session_id}))


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}.txt")
def show_text(request: Request, trace_id: str) -> Response:
    """Show a trace as an indented tree in plain text."""
    observations = _store(request).observations(trace_id)
    if not observations:
        return PlainTextResponse(MISSING, 404)
    return PlainTextResponse(span_tree(each.span for each in observations) + "\n")


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}.json")
def download_trace(request: Request, trace_id: str) -> Response:
    """Send a trace as an OTLP/JSON request, which this viewer and other backends accept."""
    observations = _store(request).observations(trace_id)
    if not observations:
        return PlainTextResponse(MISSING, 404)
    disposition = f'attachment; filename="{observations[0].span.trace_id}.json"'
    return JSONResponse(otlp_json(each.span for each in observations), headers={"Content-Disposition": disposition})


@router.get(f"/project/{PROJECT}/traces/{{trace_id}}")
def show_trace(
    request: Request,
    trace_id: str,
    observation: str = "",
    essentials: Literal["", "1"] = "",
    find: Annotated[str, Query(max_length=500)] = "",
    zoom: Annotated[str, Query(max_length=64)] = "",
    unfold: Annotated[str, Query(max_length=64)] = "",
    part: Literal["", "detail"] = "",
) -> Response:
    """Show a trace: its tree on a time axis, and one observation in full; or only that `part`."""
    store = _store(request)
    view = {"essentials": essentials, "find": find, "zoom": zoom, "unfold": unfold}
    if part and (chosen := store.observation(trace_id, observation)):
        return page(request, "detail.html", view=view, **_detail(store, chosen))
    summary = store.trace(trace_id)
    if not (summary and (observations := store.observations(trace_id))):
        return page(request, "unknown.html", 404, what="trace", id=trace_id, live=_pace(running=True))
    trace = Trace(trace_id, observations)
    shown = _shown(trace, observation)
    zoomed = next((each for each in observations if each.id == zoom), None)
    axis = Axis(zoomed.span.start, zoomed.span.end) if zoomed else Axis(trace.start, trace.end)
    rows = tree_rows(trace, essentials=bool(essentials), find=find, axis=axis, unfolded=unfold, chosen=observation)
    linked, linking = store.linked(trace_id)
    return page(
        request,
        "trace.html",
        trace=trace,
        summary=summary,
        rows=rows,
        axis=axis,
        zoomed=zoomed,
        waited=waited_for(trace)[:WAITED],
        graph=graph(trace),
        linked=linked,
        linking=linking,
        chat=_chat_link(request, trace.session_id),
        view=view,
        live=_pace(running=True) if summary.running else 0,
        **_detail(store, shown),
    )


def _chat_link(request: Request, session_id: str | None) -> str:
    template: str = request.app.state.settings.chat_url
    return template.replace("{session_id}", quote(session_id, safe="")) if template and session_id else ""


def _detail(store: Store, shown: Observation) -> dict[str, Any]:
    return {
        "shown": shown,
        "input_content": input_content(shown),
        "output_content": output_content(shown),
        "tools": tool_cards(shown),
        "documents": document_cards(shown),
        "scores": store.scores(shown.span.trace_id),
    }


def _groups_page(request: Request, what: Literal["session", "user"], before: str) -> Response:
    store = _store(request)
    found = (store.sessions if what == "session" else store.users)(PAGE + 1, before)
    return page(
        request,
        "groups.html",
        what=what,
        groups=found[:PAGE],
        older=found[PAGE - 1].cursor if len(found) > PAGE else "",
        before=before,
        live=0 if before else _pace(running=False),
    )


def _turns(store: Store, traces: list[TraceSummary]) -> list[SessionTurn]:
    ids = [trace.trace_id for trace in traces]
    tools, scores = store.tools(ids), store.scores_of(ids)
    return [
        session_turn(trace, store.key_observations(trace.trace_id), tools[trace.trace_id], scores[trace.trace_id])
        for trace in traces
    ]


def _pace(*, running: bool) -> int:
    """Return how long a page waits before it checks for updates, in milliseconds."""
    return 1_000 if running else 5_000


def _shown(trace: Trace, wanted: str) -> Observation:
    chosen = next((each for each in trace.observations if each.id == wanted), None)
    return chosen or trace.root or trace.observations[0]


def _store(request: Request) -> Store:
    return request.app.state.store
