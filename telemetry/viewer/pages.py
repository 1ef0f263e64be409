"""The pages: the lists of traces, sessions and users, a session, one trace, and the same trace as a file."""

import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from telemetry.testing.tree import span_tree
from telemetry.viewer.access import Reader
from telemetry.viewer.cards import document_cards, tool_cards
from telemetry.viewer.figures import HOUR_S, merged
from telemetry.viewer.graph import graph
from telemetry.viewer.messages import input_content, output_content
from telemetry.viewer.observation import Observation, text
from telemetry.viewer.otlp_json import otlp_json
from telemetry.viewer.overview import BUCKETS_S, HEIGHT, SLOT, charts, first_second, grouped, start_link
from telemetry.viewer.plots import plots
from telemetry.viewer.render import page
from telemetry.viewer.session import SessionTurn, followers, session_turn
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store
from telemetry.viewer.summary import CURSOR, SINCE, TraceFilters, TraceSummary
from telemetry.viewer.timeline import Axis, Tree, critical_path, tree_rows, waited_for, whole

PAGE = 50
TURNS = 20
# How many rows of a tree a page has.
ROWS = 300
# How many names of what a trace waited for are shown.
WAITED = 4
GROUP_CURSOR = r"^([0-9]{1,19}-.+)?$"
MISSING = "No spans of this trace have come yet. Reload in a moment.\n"

router = APIRouter(dependencies=[Reader])


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
    rows: Annotated[str, Query(pattern=r"^([0-9]{1,9}|all)?$")] = "",
    part: Literal["", "detail"] = "",
) -> Response:
    """Show a trace: its tree on a time axis, and one observation in full; or only that `part`.

    Of a large tree, a page has the `rows` from this number on, without one those with the chosen observation.
    """
    store = _store(request)
    view = {"essentials": essentials, "find": find, "zoom": zoom, "unfold": unfold, "rows": rows}
    if part and (chosen := store.observation(trace_id, observation)):
        return page(request, "detail.html", view=view, **_detail(store, chosen))
    summary, spans = store.trace(trace_id), store.spans(trace_id)
    root = next((each for each in spans if each.parent_id is None), None)
    first = root or next(iter(spans), None)
    shown = store.observation(trace_id, observation) or (store.observation(trace_id, first.id) if first else None)
    if not (summary and shown):
        return page(request, "unknown.html", 404, what="trace", id=trace_id, live=_pace(running=True))
    zoomed = next((each for each in spans if each.id == zoom), None)
    axis = Axis(zoomed.start, zoomed.end) if zoomed else whole(spans)
    path = critical_path(spans)
    tree = tree_rows(
        spans,
        essentials=bool(essentials),
        found=_with_words(store.observations(trace_id), find) if find.split() else None,
        axis=axis,
        unfolded=unfold,
        chosen=observation,
        critical={each.id for each, _ in path},
    )
    begin, end = _window(tree, rows, observation or unfold)
    linked, linking = store.linked(trace_id)
    return page(
        request,
        "trace.html",
        summary=summary,
        tags=store.tags(trace_id),
        root=root,
        rows=tree[begin:end],
        begin=begin,
        count=len(tree),
        ROWS=ROWS,
        axis=axis,
        zoomed=zoomed,
        waited=waited_for(path)[:WAITED],
        graph=graph(spans),
        linked=linked,
        linking=linking,
        chat=_chat_link(request, summary.session_id),
        view=view,
        live=_pace(running=True) if summary.running else 0,
        **_detail(store, shown),
    )


def _with_words(observations: Iterable[Observation], words: str) -> set[str]:
    """Return the ids of the observations that have all the words in their name, input, output or message."""
    wanted = words.lower().split()
    found: set[str] = set()
    for each in observations:
        parts = (each.span.name, each.input, each.output, each.message)
        searched = "\n".join(text(part) for part in parts if part).lower()
        if all(word in searched for word in wanted):
            found.add(each.id)
    return found


def _window(tree: Tree, rows: str, chosen: str) -> tuple[int, int]:
    """Return the first row that a page shows and the one after its last: by default those around the chosen one."""
    if rows == "all":
        return 0, len(tree)
    begin = min(int(rows), max(len(tree) - 1, 0)) if rows else tree.place_of(chosen) // ROWS * ROWS
    return begin, begin + ROWS


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


def _store(request: Request) -> Store:
    return request.app.state.store
