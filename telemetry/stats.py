"""Figures of the delivery of spans for health checks, read from memory."""

import os
from collections.abc import Sequence
from typing import Any

from telemetry import internal_errors, pipeline
from telemetry.delivery.store import MEDIA, SPAN
from telemetry.delivery.writer import MediaDelivery, SpanWriter, SpoolProcessor
from telemetry.metrics.process import Metrics
from telemetry.scores.queue import ScoreQueue


def stats() -> dict[str, Any]:
    """Return figures of this process, of its backend, and of the spool folder, which other processes may share.

    The figures of the folder are a few seconds old. They contain no secrets and no content.

    Example:
        >>> import telemetry
        >>> telemetry.stats()["tracing"]
        False
    """
    processor = pipeline.get(SpoolProcessor)
    writer = processor.writer if processor else None
    queue, metrics = pipeline.get(ScoreQueue), pipeline.get(Metrics)
    return {
        "tracing": pipeline.active() is not None,
        "process": {"pid": os.getpid(), "failures": internal_errors.counts(), **(_process(writer) if writer else {})},
        **({"backend": _backend(writer), "spool": _spool(writer)} if writer else {}),
        **({"scores": queue.stats()} if queue else {}),
        **({"metrics": dict(metrics.exports)} if metrics else {}),
    }


def _process(writer: SpanWriter) -> dict[str, Any]:
    backend, file, memory = writer.backend, writer.spool.file, writer.spool.memory
    return {
        "pending": writer.pending,
        "committed": file.lock.committed if file else 0,
        "waiting": (file.rows_of(SPAN) if file else 0) + memory.rows_of(SPAN),
        "waiting_bytes": (file.size if file else 0) + memory.size,
        "delivered": backend.accepted,
        **({"media": _media(writer, writer.media)} if writer.media else {}),
        "rejected": backend.rejected,
        "dead_letters": backend.dead_letters,
        "dropped": {why: number for why, number in writer.spool.dropped.items() if number},
        "shortened": writer.counts["shortened"],
        "redacted": writer.counts["redacted"],
        "lag_ms": _percentiles(list(writer.lags)),
    }


def _media(writer: SpanWriter, media: MediaDelivery) -> dict[str, Any]:
    return {
        "waiting": sum(store.rows_of(MEDIA) for store in writer.spool.own_stores()),
        "delivered": media.state.accepted,
        "refused": media.state.refused,
        **media.state.last_events(),
    }


def _backend(writer: SpanWriter) -> dict[str, Any]:
    return {
        "endpoint": writer.settings.endpoint,
        "state": writer.backend.summary,
        **writer.backend.last_events(),
    }


def _spool(writer: SpanWriter) -> dict[str, Any]:
    spool = writer.spool
    folder = spool.folder
    return {
        "folder": str(writer.settings.spool_dir),
        "on_disk": spool.file is not None,
        "disk_errors": spool.disk_errors,
        "taken_over": spool.taken_over,
        "set_aside": spool.set_aside,
        "unusable": spool.unusable,
        "files": folder.files,
        "spans": folder.waiting.rows,
        "media": folder.waiting.media,
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
