"""How spans fare on their way to the backend: figures for health checks, from memory alone."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from telemetry import provider
from telemetry.delivery.outbox import Outbox
from telemetry.failures import failures
from telemetry.scores import desk


def stats() -> dict[str, Any]:
    """Return the figures of this process, of its backend, and of the spool folder that it may share with others.

    The folder's are a few seconds old. All of it is safe to show: no secrets, no content.
    """
    active = provider.pipeline()
    outbox = active.spooling.outbox if active and active.spooling else None
    return {
        "tracing": active is not None,
        "process": {"pid": os.getpid(), "failures": failures(), **(_process(outbox) if outbox else {})},
        **({"backend": _backend(outbox), "spool": _spool(outbox)} if outbox else {}),
        **({"scores": open_desk.stats()} if (open_desk := desk.current()) else {}),
    }


def _process(outbox: Outbox) -> dict[str, Any]:
    backend, file, memory = outbox.deliverer.backend, outbox.spools.file, outbox.spools.memory
    return {
        "pending": outbox.pending,
        "committed": file.claim.committed if file else 0,
        "waiting": (file.rows if file else 0) + memory.rows,
        "waiting_bytes": (file.size if file else 0) + memory.size,
        "delivered": backend.accepted,
        "dead_letters": backend.buried,
        "dropped": {why: number for why, number in outbox.spools.dropped.items() if number},
        "shortened": outbox.counts["shortened"],
        "redacted": outbox.counts["redacted"],
        "lag_ms": _percentiles(list(outbox.lags)),
    }


def _backend(outbox: Outbox) -> dict[str, Any]:
    backend = outbox.deliverer.backend
    error = backend.last_error
    return {
        "endpoint": outbox.settings.endpoint,
        "state": outbox.deliverer.state,
        "last_success": _iso(backend.last_success),
        "last_error": {"at": _iso(error[0]), "what": error[1]} if error else None,
    }


def _spool(outbox: Outbox) -> dict[str, Any]:
    spools = outbox.spools
    folder = spools.folder
    return {
        "folder": str(outbox.settings.spool_dir),
        "on_disk": spools.file is not None,
        "disk_errors": spools.disk_errors,
        "set_aside": spools.set_aside,
        "files": folder.files,
        "spans": folder.waiting.rows,
        "bytes": folder.waiting.size,
        "oldest_s": round(folder.waiting.oldest_s, 1),
        "dead_letters": folder.waiting.dead,
    }


def _percentiles(lags: Sequence[float]) -> dict[str, float] | None:
    if not lags:
        return None
    ordered = sorted(lags)
    ranks = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": -1}
    return {name: round(ordered[rank] * 1000, 1) for name, rank in ranks.items()}


def _iso(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds") if at else None
