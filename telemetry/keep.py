"""Which traces are kept, decided when their turn has ended: the service decides, whoever began the trace follows."""

from telemetry import provider
from telemetry.delivery.outbox import Outbox


def holds() -> bool:
    """Whether spans of this process wait until it is known that their trace is kept."""
    outbox = _outbox()
    return outbox is not None and outbox.settings.keep_rate is not None


def decide(trace_id: str, kept: bool | None = None) -> bool:
    """Return whether this trace is kept, once that is on disk; an error among its spans here always keeps it.

    `kept` is what somebody has decided already: True brings a dropped trace back within `TELEMETRY_HOLD_S`. None asks
    for the rule: the share `TELEMETRY_KEEP_RATE` of the ordinary ones. It waits for the disk: not for the event loop.
    """
    outbox = _outbox()
    return outbox.decide(trace_id, kept) if outbox else True


def bring_back(trace_id: str) -> bool:
    """Return whether a trace that was dropped is kept after all: not once `TELEMETRY_HOLD_S` is over.

    What another process holds of it is not this one's to bring back. It waits for the disk: not for the event loop.
    """
    outbox = _outbox()
    return outbox is not None and outbox.bring_back(trace_id)


def is_slow(seconds: float) -> bool:
    """Whether a turn that took so long is kept for that."""
    outbox = _outbox()
    return outbox is not None and seconds >= outbox.settings.slow_s


def _outbox() -> Outbox | None:
    active = provider.pipeline()
    return active.spooling.outbox if active and active.spooling else None
