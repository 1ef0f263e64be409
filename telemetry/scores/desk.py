"""Takes scores in: without their secrets, on disk for each place that they go to, and delivered from there."""

import logging
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

from telemetry import langfuse, langsmith, wire
from telemetry.redact.stage import pseudonym
from telemetry.scores.box import Box
from telemetry.scores.courier import Courier, Place
from telemetry.scores.score import Score
from telemetry.settings import Settings

logger = logging.getLogger(__name__)

FAREWELL_S = 2.0
LOOK_S = 0.02


@dataclass(frozen=True)
class Ticket:
    """A score on its way to one place."""

    courier: Courier
    number: int

    @property
    def open(self) -> bool:
        """Whether there may soon be more to say of it."""
        return not self.courier.is_down and self.courier.box.waits(self.number)

    def __str__(self) -> str:
        if self.courier.box.waits(self.number):
            return "queued"
        refusal = self.courier.box.refusal(self.number)
        return f"skipped: it was refused: {refusal}" if refusal else "sent"


@dataclass(frozen=True)
class Posted:
    """A score that was taken in, and what becomes of it per place."""

    score: Score
    tickets: Mapping[str, Ticket | str]

    def places(self, seconds: float = 0.0) -> dict[str, str]:
        """Return per place `sent`, `queued` or `skipped: …`, waiting so long for places that answer."""
        deadline = time.monotonic() + seconds
        underway = [ticket for ticket in self.tickets.values() if isinstance(ticket, Ticket)]
        while time.monotonic() < deadline and any(ticket.open for ticket in underway):
            time.sleep(LOOK_S)
        return {place: str(ticket) for place, ticket in self.tickets.items()}


class Desk:
    """Where this process hands in its scores, for the places that these settings name."""

    def __init__(self, settings: Settings, environment: str | None = None) -> None:
        self._settings = settings
        self._environment = environment
        self._fence = wire.fence(settings)
        self._open()

    def post(self, score: Score, *, skip: Mapping[str, str] | None = None) -> Posted:
        """Keep the score, on disk where there is one, and have it delivered; `skip` says where not, and why."""
        if os.getpid() != self._pid:
            self._open()  # the threads of a parent are not in its forked child
        clean = self._clean(score)
        skipped = {**self._skipped, **(skip or {})}
        tickets = {
            place: self._put(courier, clean) for place, courier in self._couriers.items() if place not in skipped
        }
        return Posted(clean, {**skipped, **tickets})

    def user(self, user_id: str | None) -> str | None:
        """Return the user as scores may know one: the pseudonym where user ids are hashed."""
        key = self._settings.user_hash_key
        return pseudonym(key.get_secret_value().encode(), user_id) if key and user_id else user_id

    def close(self) -> None:
        """Deliver what can be delivered at once, and leave the rest to the next process."""
        for courier in self._couriers.values():
            courier.stop(FAREWELL_S)

    def stats(self) -> dict[str, Any]:
        """Return per place how many scores wait and for how long, how many went, how many were refused, the last error.

        What waits is what waited a few seconds ago.
        """
        return {place: _figures(courier) for place, courier in self._couriers.items()}

    def _open(self) -> None:
        self._pid = os.getpid()
        self._skipped, self._couriers = dict[str, str](), dict[str, Courier]()
        for name, (place, owner) in _places(self._settings, self._environment).items():
            if isinstance(place, str):
                self._skipped[name] = place
            else:
                self._couriers[name] = Courier(self._box(name, owner), place)
                self._couriers[name].start()

    def _put(self, courier: Courier, score: Score) -> Ticket | str:
        try:
            return Ticket(courier, courier.put(score))
        except Exception as error:
            logger.exception("a score could not be kept")
            return f"skipped: it could not be kept ({error})"

    def _box(self, place: str, owner: str) -> Box:
        name = f"scores-{place}-{sha256(owner.encode()).hexdigest()[:8]}.sqlite"
        try:
            box = Box(self._settings.spool_dir.absolute() / name if self._settings.spool else None)
            box.figures()
        except (OSError, sqlite3.Error) as error:
            logger.warning("scores are kept in memory until they are sent, and end with the process: %s", error)
            return Box(None)
        return box

    def _clean(self, score: Score) -> Score:
        silent = self._settings.content == "metadata-only"
        kinds = self._fence.kinds_in([score.model_dump_json(include={"value", "comment", "metadata"})])
        said: dict[str, Any] = {"value": score.value, "comment": score.comment, "metadata": score.metadata}
        if silent:
            said.update(comment=None, metadata={})
        return score.model_copy(update={name: self._fence.value(value, kinds) for name, value in said.items()})


def _places(settings: Settings, environment: str | None) -> dict[str, tuple[Place | str, str]]:
    """Return the places by name: what delivers there, or why nothing does, and whose account it is."""
    found = {"langfuse": _langfuse(settings, environment)}
    if settings.langsmith_api_key:
        found["langsmith"] = _langsmith(settings, settings.langsmith_api_key.get_secret_value())
    return found


def _langfuse(settings: Settings, environment: str | None) -> tuple[Place | str, str]:
    if not settings.enabled:
        return "skipped: tracing is off", ""
    if not settings.langfuse_url:
        return "skipped: there are no LANGFUSE_* keys", ""
    return langfuse.Scores(settings, environment), f"{settings.langfuse_url} {settings.public_key}"


def _langsmith(settings: Settings, key: str) -> tuple[Place | str, str]:
    if not find_spec("langsmith"):
        return "skipped: the langsmith package is not installed", ""
    return langsmith.Feedback(settings), f"{settings.langsmith_endpoint} {key}"


def _figures(courier: Courier) -> dict[str, Any]:
    waiting, oldest_s, refused = courier.figures
    error = courier.last_error
    return {
        "waiting": waiting,
        "oldest_s": round(oldest_s, 1),
        "delivered": courier.delivered,
        "refused": refused,
        "last_success": _iso(courier.last_success),
        "last_error": {"at": _iso(error[0]), "what": error[1]} if error else None,
    }


def _iso(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds") if at else None


_desk: Desk | None = None


def start(settings: Settings, environment: str | None = None) -> None:
    """Open the desk of this process; nothing waits for it."""
    global _desk
    stop()
    _desk = Desk(settings, environment)


def stop() -> None:
    """Close the desk; safe to call twice."""
    global _desk
    if _desk:
        _desk.close()
        _desk = None


def current() -> Desk | None:
    """Return the desk of this process, None with tracing off."""
    return _desk
