"""One line of the list of traces, and what a list of them is asked for."""

import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

State = Literal["running", "unfinished", "failed", "ok"]

# A trace in which something is still open counts as running for so long after its last sign of life.
SILENCE_S = 300
SUMMARIES = (
    "SELECT trace_id, start, end, spans, tokens, errors, first_token, open, seen, name, session_id, user_id FROM traces"
)
WORDS = "id IN (SELECT rowid FROM words WHERE words MATCH ?)"
SCORED = "trace_id IN (SELECT trace_id FROM scores WHERE name = ? AND trace_id IS NOT NULL{})"


@dataclass(frozen=True)
class Summary:
    """One line of the list of traces; times in Unix nanoseconds, `seen` in seconds."""

    trace_id: str
    start: int
    end: int
    spans: int
    tokens: int
    errors: int
    first_token_at: int | None
    open: int
    seen: float
    given_name: str
    session_id: str | None
    user_id: str | None

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
        return None if self.first_token_at is None else max(self.first_token_at - self.start, 0) / 1e9

    @property
    def state(self) -> State:
        """Whether more is to come (running), was to come (unfinished), or how it ended."""
        if self.open and time.time() - self.seen < SILENCE_S:
            return "running"
        if self.open > 1:
            return "unfinished"
        return "failed" if self.errors else "ok"

    @property
    def place(self) -> str:
        """Where the trace stands in the list: what `before` takes."""
        return f"{self.start}-{self.trace_id}"


@dataclass(frozen=True)
class Session:
    """The sums over the traces of a session; `failed` counts those with an error."""

    traces: int
    tokens: int
    failed: int
    start: int | None
    end: int | None


@dataclass(frozen=True)
class Tool:
    """A tool that a trace used, and how often."""

    name: str
    calls: int
    failed: int


def _unset(value: Any) -> Any:
    return None if value == "" else value


PLACE = r"^([0-9]{1,19}-[0-9a-f]{32})?$"
Bound = Annotated[FiniteFloat | None, BeforeValidator(_unset)]


class Filters(BaseModel):
    """Which traces are wanted; an empty field wants all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = Field(default="", max_length=500)
    session: str = ""
    user: str = ""
    name: str = ""
    score: str = ""
    at_least: Bound = None
    at_most: Bound = None
    errors: Literal["", "1"] = ""
    before: str = Field(default="", pattern=PLACE)

    @property
    def detailed(self) -> bool:
        """Whether more than words and errors is asked for."""
        return any((self.session, self.user, self.name, self.score))

    @property
    def given(self) -> bool:
        """Whether anything narrows the list."""
        return self.detailed or bool(self.text or self.errors)

    def link(self, **changes: str) -> str:
        """Return the query string that asks for the same, with some changes."""
        fields = self.model_dump() | changes
        return "?" + urlencode({name: value for name, value in fields.items() if value not in ("", None)})

    def query(self, count: int) -> tuple[str, list[Any]]:
        """Return the SQL that finds the newest of these traces, and its values."""
        found = [clause for clause in self._clauses() if clause]
        where = " AND ".join(sql for sql, _ in found) or "1"
        sql = f"{SUMMARIES} WHERE {where} ORDER BY start DESC, trace_id DESC LIMIT ?"
        return sql, [*(value for _, values in found for value in values), count]

    def _clauses(self) -> list[tuple[str, list[Any]] | None]:
        start, _, trace_id = self.before.partition("-")
        return [
            (WORDS, [words]) if (words := _match(self.text)) else None,
            ("session_id = ?", [self.session]) if self.session else None,
            ("user_id = ?", [self.user]) if self.user else None,
            ("name = ?", [self.name]) if self.name else None,
            ("errors > 0", []) if self.errors else None,
            self._scored() if self.score else None,
            ("(start, trace_id) < (?, ?)", [min(int(start), 2**63 - 1), trace_id]) if start else None,
        ]

    def _scored(self) -> tuple[str, list[Any]]:
        bounds = [(sql, value) for sql, value in ((">=", self.at_least), ("<=", self.at_most)) if value is not None]
        clause = SCORED.format("".join(f" AND number {sql} ?" for sql, _ in bounds))
        return clause, [self.score, *(value for _, value in bounds)]


def _match(words: str) -> str:
    """Return the words as FTS5 takes them: quoted, all of them wanted, each perhaps the beginning of one."""
    return " ".join('"' + word.replace('"', '""') + '"*' for word in words.replace("\0", " ").split())
