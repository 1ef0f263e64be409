"""The lines of the lists of traces, sessions and users, and the filters of the list of traces."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator
from pydantic_core import to_json

from telemetry.moment import LAST_TIME, Moment, as_utc, unix_nano

State = Literal["running", "unfinished", "completed", "waiting", "cancelled", "failed", "lost"]

# For how long after its latest span a trace with open spans counts as running.
SILENCE_S = 300
# The turn's own status, or else a status that is derived from the spans that have arrived.
STATE = """CASE
WHEN turn_status IS NOT NULL THEN turn_status
WHEN pending AND updated_at > {horizon!r} THEN 'running'
WHEN pending > 1 THEN 'unfinished'
WHEN errors THEN 'failed'
ELSE 'completed' END"""
SUMMARIES = """
SELECT trace_id, start, end, spans, tokens, cost, errors, first_token, pending AND updated_at > {horizon!r},
{state} AS state, name, session_id, user_id, question, answer, failure, public
FROM traces"""
WORDS = "id IN (SELECT rowid FROM words WHERE words MATCH ?)"
AMONG = "id IN (SELECT value FROM json_each(?))"
# The index has trigrams: a text contains a shorter word if one of its trigrams begins with it.
SHORT_WORD = """
id IN (SELECT rowid FROM words WHERE words MATCH coalesce((
    SELECT 'content : (' || group_concat('"' || replace(term, '"', '""') || '"', ' OR ') || ')'
    FROM words_terms WHERE term >= ? AND term <= ?
), '""'))"""
# Short words match parts of most ids: only words of this length or more are searched for in ids.
ID_PART = 6
TRIGRAM = 3
LABELLED = "id IN (SELECT trace FROM labels WHERE kind = ? AND value = ?)"
# Where many traces have the label, it is looked up for those that are met first.
OFTEN_LABELLED = "EXISTS (SELECT 1 FROM labels WHERE kind = ? AND value = ? AND trace = traces.id)"
LABELS = ("model", "tool", "tag", "environment", "version", "error")
SCORED = "trace_id IN (SELECT trace_id FROM scores WHERE name = ? AND trace_id IS NOT NULL{})"
SINCE = {"1h": 3_600, "24h": 86_400, "7d": 7 * 86_400}
# The statuses in the order of their severity. An index cannot know the time: a trace that runs has the place that its
# errors give.
SEVERITIES = ("completed", "waiting", "cancelled", "lost", "failed")
# The columns that the list can be sorted by, as SQL; each has an index that ends like the order of time.
SORTS: Mapping[str, str] = {
    "latency": "latency",
    "first_token": "coalesce(first_token, -1)",
    "tokens": "tokens",
    "cost": "coalesce(cost, -1)",
    "errors": "errors",
    "status": "CASE coalesce(turn_status, CASE WHEN errors THEN 'failed' ELSE 'completed' END) "
    "WHEN 'waiting' THEN 1 WHEN 'cancelled' THEN 2 WHEN 'lost' THEN 3 WHEN 'failed' THEN 4 ELSE 0 END",
    "name": "name",
    "user": "user_id",
    "session": "session_id",
}
TEXTS = {"name", "user", "session"}


@dataclass(frozen=True)
class TraceSummary:
    """One line of the list of traces; times in Unix nanoseconds, costs in US dollars."""

    trace_id: str
    start: int
    end: int
    spans: int
    tokens: int
    cost: float | None
    errors: int
    first_token_ns: int | None
    running: bool
    state: State
    given_name: str
    session_id: str
    user_id: str
    question: str
    answer: str
    failure: str
    public: bool

    @property
    def name(self) -> str:
        """Any span's trace name, else the root's name, else the trace id."""
        return self.given_name or self.trace_id

    @property
    def latency(self) -> float:
        """Seconds from the first start to the last end."""
        return max(self.end - self.start, 0) / 1e9

    @property
    def first_token(self) -> float | None:
        """Seconds from the first start to the first token of any model call."""
        return None if self.first_token_ns is None else self.first_token_ns / 1e9

    @property
    def severity(self) -> int:
        """The place of its status among `SEVERITIES`."""
        unsettled = "failed" if self.errors else "completed"
        return SEVERITIES.index(self.state if self.state in SEVERITIES else unsettled)

    @property
    def cursor(self) -> str:
        """The position of the trace in order of time, for `before`."""
        return f"{self.start}-{self.trace_id}"

    def cursor_in(self, sort: str) -> str:
        """Return the position of the trace in this order."""
        values: dict[str, Any] = {
            "latency": max(self.end - self.start, 0),
            "first_token": -1 if self.first_token_ns is None else self.first_token_ns,
            "tokens": self.tokens,
            "cost": -1 if self.cost is None else self.cost,
            "errors": self.errors,
            "status": self.severity,
            "name": self.given_name,
            "user": self.user_id,
            "session": self.session_id,
        }
        return f"{values[sort]}~{self.cursor}" if sort else self.cursor


@dataclass(frozen=True)
class GroupSummary:
    """The traces of a session or a user, in one line; `latest` is when the last one began."""

    id: str
    turns: int
    traces: int
    latest: int
    tokens: int
    cost: float | None
    failed: int
    user_id: str
    sessions: int
    question: str
    answer: str

    @property
    def cursor(self) -> str:
        """Its position in the list, for `before`."""
        return f"{self.latest}-{self.id}"


@dataclass(frozen=True)
class SessionSummary:
    """The sums over the traces of a session; `failed` counts those that failed."""

    traces: int
    tokens: int
    cost: float | None
    failed: int
    start: int | None
    end: int | None


@dataclass(frozen=True)
class ToolUse:
    """A tool that a trace used, and how often."""

    name: str
    calls: int
    failed: int


def _unset(value: Any) -> Any:
    return None if value == "" else value


CURSOR = r"^([0-9]{1,19}-[0-9a-f]{32})?$"
SORTED_CURSOR = r"^((.{0,1000}~)?[0-9]{1,19}-[0-9a-f]{32})?$"
SORT = rf"^(({'|'.join(SORTS)})(\.asc)?|time\.asc)?$"
Bound = Annotated[FiniteFloat | None, BeforeValidator(_unset)]
OptionalMoment = Annotated[Moment | None, BeforeValidator(_unset)]


class TraceFilters(BaseModel):
    """The filters of the list of traces; an empty field matches all, and without `all` only turns are listed."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    text: str = Field(default="", max_length=500)
    session: str = ""
    user: str = ""
    name: str = ""
    model: str = ""
    tool: str = ""
    tag: str = ""
    environment: str = ""
    version: str = ""
    error: str = ""
    status: Literal["", "running", "unfinished", "completed", "waiting", "cancelled", "failed", "lost"] = ""
    score: str = ""
    at_least: Bound = None
    at_most: Bound = None
    errors: Literal["", "1"] = ""
    since: Literal["", "1h", "24h", "7d"] = ""
    start: OptionalMoment = Field(default=None, alias="from")
    end: OptionalMoment = Field(default=None, alias="to")
    all: Literal["", "1"] = ""
    sort: str = Field(default="", pattern=SORT)
    before: str = Field(default="", pattern=SORTED_CURSOR)

    @model_validator(mode="after")
    def _cursor_fits_order(self) -> "TraceFilters":
        self._cursor()
        return self

    @property
    def detailed(self) -> bool:
        """Whether there are filters other than words, errors, a time and the facets."""
        return bool(self.score or self.start or self.end or self.session)

    @property
    def given(self) -> dict[str, str]:
        """The active filters by their names in the address, without order, page and kind of trace."""
        fields = self.model_dump(by_alias=True, exclude={"before", "sort", "all"})
        return {name: _shown(value) for name, value in fields.items() if value not in ("", None)}

    @property
    def order(self) -> str:
        """The name of the column that sorts, empty for the time."""
        return self.sort.removesuffix(".asc").removeprefix("time")

    def link(self, **changes: str) -> str:
        """Return the query string of the first page with the same filters and some changes."""
        fields = {**self.given, "sort": self.sort, "all": self.all, **changes}
        return "?" + urlencode({name: value for name, value in fields.items() if value})

    def sorted_by(self, column: str) -> str:
        """Return the query string that sorts by a column, descending; ascending if it is sorted so already."""
        descending = column if column != "time" else ""
        return self.link(sort=f"{column}.asc" if self.sort == descending else descending)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that a trace must have, by kind."""
        return {kind: value for kind in LABELS if (value := getattr(self, kind))}

    @property
    def match(self) -> str:
        """What the index of words is asked for; empty without words that are long enough."""
        return " AND ".join(_phrase(word) for word in self._words if len(word) >= TRIGRAM)

    @property
    def _words(self) -> list[str]:
        return self.text.replace("\0", " ").split()

    def query(self, count: int, frequent: Collection[str] = (), sample: Sequence[int] = ()) -> tuple[str, list[Any]]:
        """Return the SQL that finds the first of these traces in their order, and its values."""
        where, values = self.where(frequent, sample)
        direction = "ASC" if self.sort.endswith(".asc") else "DESC"
        columns = [*([SORTS[self.order]] if self.order else []), "start", "trace_id"]
        if after := self._cursor():
            beyond = ">" if direction == "ASC" else "<"
            # The first part alone would be wrong; the second alone does not use the index of an expression.
            where += (
                f" AND {columns[0]} {beyond}= ? AND ({', '.join(columns)}) {beyond} ({', '.join('?' * len(after))})"
            )
            values += [after[0], *after]
        order = ", ".join(f"{column} {direction}" for column in columns)
        return f"{summaries()} WHERE {where} ORDER BY {order} LIMIT ?", [*values, count]

    def where(self, frequent: Collection[str] = (), sample: Sequence[int] = ()) -> tuple[str, list[Any]]:
        """Return the SQL of the filters, and its values.

        `frequent` are the kinds of labels that many traces have. A `sample` of the traces with the words, or the label,
        stands for all of them.
        """
        found = [clause for clause in self._clauses(frequent, sample) if clause]
        return " AND ".join(sql for sql, _ in found) or "1", [value for _, values in found for value in values]

    def _clauses(self, frequent: Collection[str], sample: Sequence[int]) -> list[tuple[str, list[Any]] | None]:
        start = time.time_ns() - SINCE[self.since] * 10**9 if self.since else None
        match = self.match
        short = [word.lower() for word in self._words if len(word) < TRIGRAM]
        # The sample is of the words if there are any.
        labels = {} if sample and not match else self.labels
        return [
            None if self.all else ("turn", []),
            (AMONG, [to_json(sample).decode()]) if sample else (WORDS, [match]) if match else None,
            *((SHORT_WORD, [word, word + "\U0010ffff"]) for word in short),
            ("session_id = ?", [self.session]) if self.session else None,
            ("user_id = ?", [self.user]) if self.user else None,
            ("name = ?", [self.name]) if self.name else None,
            *((OFTEN_LABELLED if kind in frequent else LABELLED, [kind, value]) for kind, value in labels.items()),
            _has_status(self.status) if self.status else None,
            ("errors > 0", []) if self.errors else None,
            self._scored() if self.score else None,
            ("start >= ?", [start]) if start else None,
            ("start >= ?", [unix_nano(self.start)]) if self.start else None,
            ("start < ?", [unix_nano(self.end)]) if self.end else None,
        ]

    def _scored(self) -> tuple[str, list[Any]]:
        bounds = [(sql, value) for sql, value in ((">=", self.at_least), ("<=", self.at_most)) if value is not None]
        clause = SCORED.format("".join(f" AND number {sql} ?" for sql, _ in bounds))
        return clause, [self.score, *(value for _, value in bounds)]

    def _cursor(self) -> list[Any]:
        """Return the values after which a page starts; raise `ValueError` if they belong to another order."""
        if not self.before:
            return []
        value, _, place = self.before.rpartition("~")
        start, _, trace_id = place.partition("-")
        if bool(self.order) != ("~" in self.before):
            raise ValueError("the cursor belongs to another sort order: start at the first page")
        found: list[Any] = [min(int(start), LAST_TIME), trace_id]
        if self.order:
            found.insert(0, value if self.order in TEXTS else float(value))
        return found


def state(now: float | None = None) -> str:
    """Return the SQL of a trace's state."""
    return STATE.format(horizon=(time.time() if now is None else now) - SILENCE_S)


def summaries() -> str:
    """Return the SQL of the columns of `TraceSummary`."""
    now = time.time()
    return SUMMARIES.format(horizon=now - SILENCE_S, state=state(now))


def _has_status(status: str) -> tuple[str, list[Any]]:
    """Return the SQL of the traces of a status; where few have it, by an index of these."""
    if status in ("waiting", "cancelled", "lost"):
        return "turn_status = ?", [status]
    return f"{'pending > 0 AND ' if status in ('running', 'unfinished') else ''}{state()} = ?", [status]


def _phrase(word: str) -> str:
    """Return what finds a word anywhere in a text, whatever its script, and in an id if it is long enough."""
    quoted = '"' + word.replace('"', '""') + '"'
    return quoted if len(word) >= ID_PART else f"content : {quoted}"


def _shown(value: Any) -> str:
    return (
        as_utc(value).isoformat(timespec="minutes").removesuffix("+00:00")
        if isinstance(value, datetime)
        else str(value)
    )
