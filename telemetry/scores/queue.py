"""Redact scores, queue them on disk for each backend, and send them from there."""

import logging
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

from telemetry import pipeline
from telemetry.backends import langfuse, langsmith
from telemetry.delivery import scores
from telemetry.delivery.backoff import BackendState
from telemetry.delivery.forks import watch_forks
from telemetry.delivery.scores import Backend, ScoreBatches, ScoreStore
from telemetry.delivery.sender import Sender
from telemetry.export.redact.content import checked_name
from telemetry.export.redact.stage import pseudonym
from telemetry.export.stages import build_redactor
from telemetry.genai_events import GenaiEvents
from telemetry.metrics.instruments import Instruments
from telemetry.scores.score import Score
from telemetry.settings import Settings

logger = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 2.0
POLL_S = 0.02


class BackendQueue:
    """The scores for one backend, with the thread that sends them."""

    def __init__(self, store: ScoreStore, backend: Backend) -> None:
        self.store = store
        self.state = BackendState()
        self.batches = ScoreBatches(store, backend, self.state)
        self.sender = Sender("telemetry-scores", lambda: [self.batches], self.state, idle_s=scores.IDLE_S)
        self.sender.start()

    def put(self, score: Score) -> "Receipt | str":
        """Store a score, and return its receipt, or why it could not be stored."""
        try:
            stored = self.store.put(score.score_id, score.model_dump_json(), withdraws=score.value is None)
        except Exception as error:
            logger.exception("a score could not be stored")
            return f"skipped: it could not be stored ({error})"
        self.batches.waiting = self.store.waiting()
        self.batches.is_empty = False
        self.sender.wake()
        return Receipt(self, stored.number, stored.score_id)


@dataclass(frozen=True)
class Receipt:
    """A score that was queued for one backend."""

    queue: BackendQueue
    number: int
    score_id: str

    @property
    def is_open(self) -> bool:
        """Whether its status may soon change."""
        return not self.queue.state.is_down and str(self) == "queued"

    def __str__(self) -> str:
        return self.queue.store.status(self.number)


@dataclass(frozen=True)
class Posted:
    """A score that was queued, with a receipt per backend."""

    score: Score
    receipts: Mapping[str, Receipt | str]

    def places(self, seconds: float = 0.0) -> dict[str, str]:
        """Return per backend `sent`, `queued` or `skipped: …`; wait up to `seconds` for backends that respond."""
        deadline = time.monotonic() + seconds
        open_receipts = [receipt for receipt in self.receipts.values() if isinstance(receipt, Receipt)]
        while time.monotonic() < deadline and any(receipt.is_open for receipt in open_receipts):
            time.sleep(POLL_S)
        return {name: str(receipt) for name, receipt in self.receipts.items()}


class ScoreQueue:
    """The queue of this process's scores, for the backends that the settings name."""

    def __init__(self, settings: Settings, environment: str | None = None) -> None:
        self._settings = settings
        self._environment = environment
        self._redactor = build_redactor(settings)
        self._skipped: dict[str, str] = {}
        self._queues: dict[str, BackendQueue] | None = None
        self._open()
        watch_forks(self)

    def post(self, score: Score, *, skip: Mapping[str, str] | None = None) -> Posted:
        """Queue the score and have it sent; `skip` contains the backends to leave out, with the reasons."""
        queues = self._open() if self._queues is None else self._queues
        clean = self._clean(score)
        if instruments := pipeline.get(Instruments):
            instruments.record_score(clean.name, clean.value)
        if (events := pipeline.get(GenaiEvents)) and clean.trace_id and clean.value is not None:
            events.record_score(
                clean.name,
                clean.value,
                at=clean.at,
                trace_id=clean.trace_id,
                span_id=clean.observation_id,
                comment=clean.comment,
            )
        skipped = {**self._skipped, **(skip or {})}
        receipts = {name: queue.put(clean) for name, queue in queues.items() if name not in skipped}
        ids = [receipt.score_id for receipt in receipts.values() if isinstance(receipt, Receipt)]
        return Posted(clean.model_copy(update={"score_id": ids[0]}) if ids else clean, {**skipped, **receipts})

    def user(self, user_id: str | None) -> str | None:
        """Return the user id for scores: the pseudonym if user ids are hashed."""
        key = self._settings.user_hash_key
        return pseudonym(key.get_secret_value().encode(), user_id) if key and user_id else user_id

    def close(self) -> None:
        """Send what can be sent now, and leave the rest on disk for the next process."""
        for queue in (self._queues or {}).values():
            queue.sender.drain([queue.batches], SHUTDOWN_TIMEOUT_S)
            queue.sender.stop(SHUTDOWN_TIMEOUT_S)
            queue.batches.close()

    def stats(self) -> dict[str, Any]:
        """Return per backend how many scores wait and for how long, how many were sent or refused, the last error.

        The waiting ones are those of a few seconds ago.
        """
        return {
            name: {
                "waiting": queue.batches.waiting.rows,
                "oldest_s": round(queue.batches.waiting.oldest_s, 1),
                "delivered": queue.state.accepted,
                "refused": queue.batches.waiting.refused,
                **queue.state.last_events(),
            }
            for name, queue in (self._queues or {}).items()
        }

    def before_fork(self) -> None:
        """Do nothing: the stores pause themselves."""

    def after_fork_in_parent(self) -> None:
        """Do nothing: the threads continue."""

    def after_fork_in_child(self) -> None:
        """Open new queues at the first score: the threads belong to the parent."""
        self._queues = None

    def _open(self) -> dict[str, BackendQueue]:
        self._queues = {}
        for name, (backend, owner) in _backends(self._settings, self._environment).items():
            if isinstance(backend, str):
                self._skipped[name] = backend
            else:
                self._queues[name] = BackendQueue(self._store(name, owner), backend)
        return self._queues

    def _store(self, backend: str, owner: str) -> ScoreStore:
        name = f"scores-{backend}-{sha256(owner.encode()).hexdigest()[:8]}.sqlite"
        try:
            store = ScoreStore(self._settings.spool_dir.absolute() / name if self._settings.spool else None)
            store.waiting()
        except (OSError, sqlite3.Error) as error:
            logger.warning("scores are kept in memory, and lost if the process ends before they are sent: %s", error)
            return ScoreStore(None)
        return store

    def _clean(self, score: Score) -> Score:
        redact = self._redactor.redact_any
        changes: dict[str, Any] = {"name": redact(score.name)}
        if self._settings.content == "metadata-only":
            changes |= {"value": "[withheld]" if isinstance(score.value, str) else score.value}
            changes |= {"name": checked_name(changes["name"]), "comment": None, "metadata": {}}
        else:
            changes |= {name: redact(getattr(score, name)) for name in ("value", "comment", "metadata")}
        return score.model_copy(update=changes)


def _backends(settings: Settings, environment: str | None) -> dict[str, tuple[Backend | str, str]]:
    """Return per backend what sends to it, or why nothing does, and the account."""
    found: dict[str, tuple[Backend | str, str]] = {}
    if not settings.enabled:
        found["langfuse"] = "skipped: tracing is off", ""
    elif not settings.langfuse_url:
        found["langfuse"] = "skipped: there are no LANGFUSE_* keys", ""
    elif why := langfuse.why_no_sdk():
        found["langfuse"] = f"skipped: {why}", ""
    else:
        account = f"{settings.langfuse_url} {settings.public_key}"
        found["langfuse"] = langfuse.LangfuseScores(settings, environment), account
    if settings.langsmith_api_key:
        account = f"{settings.langsmith_endpoint} {settings.langsmith_api_key.get_secret_value()}"
        if find_spec("langsmith"):
            found["langsmith"] = langsmith.LangsmithFeedback(settings), account
        else:
            found["langsmith"] = "skipped: the langsmith package is not installed", ""
    return found


def start(settings: Settings, environment: str | None = None) -> None:
    """Open the score queue of this process, without waiting for a backend."""
    stop()
    pipeline.put(ScoreQueue(settings, environment))


def stop() -> None:
    """Close the score queue; safe to call twice."""
    if queue := pipeline.remove(ScoreQueue):
        queue.close()
