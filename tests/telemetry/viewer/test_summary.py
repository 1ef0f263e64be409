"""Which traces are found, in which order, at what cost, and what state they are in."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.export.otlp import Span
from telemetry.viewer import schema
from telemetry.viewer.observation import LIST_PRICES
from telemetry.viewer.score import Score
from telemetry.viewer.store import GROUPS, SESSIONS_OF_USER, Store
from telemetry.viewer.summary import SILENCE_S, TraceFilters, TraceSummary
from tests.telemetry.viewer.test_store import span

BEFORE = f"9-{'a' * 32}"
HOSTILE = ["a/b", "..", "%2e%2e", "#x?y=1&z=2", "ü 🔗", "x' OR '1'='1", '"* OR NEAR(', "a\0b", "<b>", "x" * 3_000]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "viewer.db", 2**30)) as store:
        yield store


def numbers(store: Store, **filters: str) -> list[int]:
    """The traces that are found, by number."""
    return [int(found.trace_id, 16) for found in store.latest(99, TraceFilters.model_validate({"all": "1", **filters}))]


def about(trace: int, **attributes: str) -> Span:
    return span(trace, attributes={name.replace("_", "."): value for name, value in attributes.items()})


def test_each_filter_narrows(store: Store) -> None:
    """Session, user, name, words, errors and score find their traces, the newest first, alone and together."""
    store.add_spans(
        [
            about(1, session_id="s", user_id="ada", langfuse_trace_name="chatbot", input_value="How is Paris?"),
            about(2, session_id="s", user_id="bob", output_value='{"text": "Rainy in Paris"}'),
            span(3, status="ERROR", message="Timeout"),
        ]
    )
    trace = [None, *(each.trace_id for each in (span(1), span(2), span(3)))]
    store.add_scores(
        [
            Score(trace_id=trace[1], name="stars", value=1),
            Score(trace_id=trace[2], name="stars", value=5),
            Score(trace_id=trace[3], name="mood", value="good"),
        ]
    )
    assert numbers(store) == [3, 2, 1]
    assert numbers(store, session="s") == [2, 1]
    assert numbers(store, user="ada") == [1]
    assert numbers(store, name="chatbot") == [1]
    assert numbers(store, errors="1") == [3]
    assert numbers(store, text="paris") == [2, 1]
    assert numbers(store, text="rain PAR") == [2]
    assert numbers(store, text="timeout") == [3]
    assert numbers(store, text="- ( *") == []
    assert numbers(store, score="stars") == [2, 1]
    assert numbers(store, score="stars", at_most="2", at_least="") == [1]
    assert numbers(store, score="mood") == [3]
    assert numbers(store, score="mood", at_least="0") == []
    assert numbers(store, session="s", user="bob", text="paris", score="stars") == [2]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_are_only_values(store: Store, value: str) -> None:
    """An id of any characters finds its own trace and no other, and survives its own link."""
    store.add_spans([about(1, session_id=value, user_id=value, langfuse_trace_name=value), span(2)])
    for field in ("session", "user", "name"):
        assert numbers(store, **{field: value}) == [1]
    assert numbers(store, score=value) == []
    numbers(store, text=value[:500])


def test_pages_join_without_gap_or_overlap(store: Store) -> None:
    """Traces that began in the same instant are on one page or the next, each once."""
    store.add_spans(span(trace, start=7) for trace in range(1, 8))
    before, seen = "", []
    while page := store.latest(3, TraceFilters(all="1", before=before)):
        seen += [int(trace.trace_id, 16) for trace in page]
        before = page[-1].cursor
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (TraceFilters(), "traces_by_start"),
        (TraceFilters(before=BEFORE), "traces_by_start"),
        (TraceFilters(session="x", before=BEFORE), "traces_by_session"),
        (TraceFilters(user="x", before=BEFORE), "traces_by_user"),
        (TraceFilters(name="x", before=BEFORE), "traces_by_name"),
        (TraceFilters(errors="1", before=BEFORE), "failed_traces"),
        (TraceFilters(sort="latency", before=f"5~{BEFORE}"), "traces_by_latency"),
        (TraceFilters(sort="first_token.asc", before=f"5~{BEFORE}"), "traces_by_first_token"),
        (TraceFilters(sort="tokens", before=f"5~{BEFORE}"), "traces_by_tokens"),
        (TraceFilters(sort="cost", before=f"0.5~{BEFORE}"), "traces_by_cost"),
        (TraceFilters(sort="errors.asc", before=f"5~{BEFORE}"), "traces_by_errors"),
        (TraceFilters(sort="status", before=f"4~{BEFORE}"), "traces_by_severity"),
        (TraceFilters(sort="user", before=f"ada~{BEFORE}"), "traces_by_user"),
        (TraceFilters(sort="name", before=f"~{BEFORE}"), "traces_by_name"),
        (TraceFilters(sort="session.asc", before=f"a~b~{BEFORE}"), "traces_by_session"),
    ],
)
def test_a_page_is_read_off_an_index(store: Store, tmp_path: Path, filters: TraceFilters, index: str) -> None:
    """However many traces there are, a page walks its index in order: nothing is sorted, no table scanned."""
    store.add_spans([span(1)])
    with closing(sqlite3.connect(tmp_path / "viewer.db")) as db:
        sql, values = filters.query(50)
        [step] = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, values)]
    assert step.startswith("SEARCH" if filters.before else "SCAN")
    assert f"USING INDEX {index}" in step


@pytest.mark.parametrize(
    "filters", [TraceFilters(score="x", at_least=1), TraceFilters(text="x"), TraceFilters(text="x", score="y")]
)
def test_scores_and_words_are_looked_up(store: Store, tmp_path: Path, filters: TraceFilters) -> None:
    """Only what has the score or the words is looked at, never all traces."""
    store.add_spans([span(1)])
    with closing(sqlite3.connect(tmp_path / "viewer.db")) as db:
        sql, values = filters.query(50)
        steps = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, values)]
    assert not [step for step in steps if step.startswith(("SCAN traces", "SCAN scores"))]


@pytest.mark.parametrize(
    ("filters", "frequent", "step"),
    [
        (TraceFilters(status="lost"), (), "SEARCH traces USING INDEX traces_by_turn_status (turn_status=?)"),
        (TraceFilters(status="running"), (), "SCAN traces USING INDEX pending_traces"),
        (TraceFilters(status="failed"), (), "SCAN traces USING INDEX traces_by_start"),
        (TraceFilters(environment="x"), ("environment",), "SCAN traces USING INDEX traces_by_start"),
    ],
)
def test_rare_statuses_and_frequent_labels_are_read_off_an_index(
    store: Store, tmp_path: Path, filters: TraceFilters, frequent: tuple[str, ...], step: str
) -> None:
    """A page of them walks an index in order and sorts nothing."""
    store.add_spans([span(1)])
    with closing(sqlite3.connect(tmp_path / "viewer.db")) as db:
        sql, values = filters.query(50, frequent)
        steps = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + sql, values)]
    assert step in steps
    assert not [each for each in steps if "TEMP B-TREE" in each or each == "SCAN traces"]


def test_a_label_that_many_traces_have_finds_them_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page and the facets are the same however frequent a label counts as."""
    store.add_spans([about(trace, model=f"m{trace % 2}", langfuse_environment="e") for trace in range(1, 9)])
    wanted = TraceFilters(model="m1", environment="e", all="1")
    found = numbers(store, model="m1", environment="e"), store.facets(wanted)
    assert found[0] == [7, 5, 3, 1]
    monkeypatch.setattr("telemetry.viewer.store.FREQUENT", 2)
    assert (numbers(store, model="m1", environment="e"), store.facets(wanted)) == found


def test_the_sums_of_users_need_no_rows_of_traces(store: Store, tmp_path: Path) -> None:
    """Whatever a user's traces are, their sums are read off the index alone."""
    store.add_spans([about(1, user_id="ada", session_id="s")])
    assert [(each.id, each.traces, each.sessions) for each in store.users(9)] == [("ada", 1, 1)]
    with closing(sqlite3.connect(tmp_path / "viewer.db")) as db:
        query = GROUPS.format(column="user_id", first="DESC", sessions=SESSIONS_OF_USER, state="turn_status")
        steps = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + query, (1, "x", 50))]
    assert [step for step in steps if step.startswith("SEARCH traces USING COVERING INDEX traces_by_user")]


def test_fifty_thousand_traces_cost_a_page_no_more_than_fifty(tmp_path: Path) -> None:
    """The work of SQLite for one page, in its own steps, does not grow with the number of traces."""
    few, many = (steps_of_a_page(tmp_path / f"{count}.db", count) for count in (60, 50_000))
    assert many < 2 * few


def steps_of_a_page(path: Path, traces: int) -> int:
    """Count what the list's second page takes, in tens of SQLite's instructions."""
    with closing(schema.connect(str(path), LIST_PRICES)) as db:
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO traces VALUES (?, ?, ?, ?, 0, 1, 0, NULL, 0, NULL, 0, 0, NULL, 1, 0, 'n', 'one session', "
            "'one user', '', '', '')",
            ((number, f"{number:032x}", number, number) for number in range(1, traces + 1)),
        )
        db.execute("COMMIT")
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        db.set_progress_handler(tick, 10)
        sql, values = TraceFilters(session="one session", user="one user", before=f"{traces}-{'0' * 32}").query(50)
        assert len(db.execute(sql, values).fetchall()) == 50
        return count


def test_a_trace_runs_until_every_parent_has_come(store: Store) -> None:
    """It is running while a parent is missing, unfinished after long silence, and then what its spans say."""
    store.add_spans([span(1, 2, parent_id=f"{1:016x}")])
    assert state(store) == "running"
    store.add_spans([span(1, 1)])
    assert state(store) == "completed"
    store.add_spans([span(1, 3, parent_id=f"{1:016x}", status="ERROR")])
    assert state(store) == "failed"
    store.add_spans([span(1, 4, parent_id=f"{9:016x}")])
    assert state(store) == "running"


def test_silence_is_not_life(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not been heard of for long is no longer said to be running."""
    store.add_spans([span(1, 2, parent_id=f"{1:016x}")])
    later = time.time() + SILENCE_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert state(store) == "unfinished"


def test_a_caller_who_sends_no_spans_leaves_nothing_unfinished(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent in another process may come for a while, and after that the trace is what it is."""
    store.add_spans([span(1, 2, parent_id=f"{1:016x}", flags=0x301), span(1, 3, parent_id=f"{2:016x}", flags=0x101)])
    assert state(store) == "running"
    later = time.time() + SILENCE_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert state(store) == "completed"


def test_a_queued_run_is_under_way(store: Store) -> None:
    """A run that waits in its queue has no open span; its heartbeat tells, until a later one tells otherwise."""
    root, below = span(1, 1, name="POST"), {"name": "heartbeat", "parent_id": f"{1:016x}"}
    store.add_spans([root, span(1, 2, **below, start=5, attributes={"status": "queued"})])
    assert state(store) == "running"
    store.add_spans([span(1, 3, **below, start=6, attributes={"status": "cancelled"})])
    assert state(store) == "completed"


def test_a_dead_attempt_is_over(store: Store) -> None:
    """Where the turn was closed as lost, the spans that died with its process are not waited for."""
    store.add_spans([span(1, 1), span(1, 3, parent_id=f"{9:016x}")])
    assert state(store) == "running"
    lost = {"turn.status": "lost"}
    store.add_spans([span(1, 2, parent_id=f"{1:016x}", status="ERROR", attributes=lost)])
    assert state(store) == "lost"


def state(store: Store) -> str:
    [found] = store.latest(1)
    return found.state


def test_the_first_token_counts_from_the_beginning(store: Store) -> None:
    """A trace's first token is the earliest of its model calls', from the trace's own start; an absurd one is cut."""
    second, started = 10**9, "langfuse.observation.completion_start_time"
    at = "1970-01-01T00:00:0{}Z"
    store.add_spans(
        [
            span(1, 1, start=second, end=9 * second),
            span(1, 2, start=2 * second, parent_id=f"{1:016x}", attributes={started: at.format(4)}),
            span(1, 3, start=2 * second, parent_id=f"{1:016x}", attributes={started: at.format(3)}),
            span(2, 1, attributes={started: "9999-12-31T00:00:00Z"}),
        ]
    )
    found = store.trace(span(1).trace_id)
    assert found
    assert found.first_token == 2
    assert store.trace(span(2).trace_id)


@pytest.mark.parametrize("filters", [{"text": "wanted"}, {"version": "1.3"}, {"text": "wanted", "user": "ada"}])
def test_pages_are_exact_where_very_many_traces_fit(store: Store, filters: dict[str, str]) -> None:
    """Each trace is on one page, the newest first, also if those that came last did not begin last."""
    came = [*range(2_000, 1_000, -1), *range(2_001, 2_301)]
    attributes = {"langfuse.trace.name": "wanted", "langfuse.version": "1.3", "user.id": "ada"}
    store.add_spans(span(number, attributes=attributes) for number in came)
    expected = sorted(came, reverse=True)
    assert numbers_of(store.latest(51, TraceFilters.model_validate(filters | {"all": "1"}))) == expected[:51]
    found: list[int] = []
    before = ""
    while traces := store.latest(400, TraceFilters.model_validate(filters | {"all": "1", "before": before})):
        found += numbers_of(traces)
        before = traces[-1].cursor
    assert found == expected


def numbers_of(traces: list[TraceSummary]) -> list[int]:
    return [int(trace.trace_id, 16) for trace in traces]
