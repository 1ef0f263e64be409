"""From samples to figures: of the times the lower quartile, and how far the rounds lie apart; of all else medians."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench.cells import WEB, Cell
from bench.measure import Measured, Plan, Sample

Row = dict[str, Any]


def results(plan: Plan, measured: Measured) -> dict[str, Any]:
    """Return what is kept of a run: the rows, and what it ran on."""
    turns = [cell for cell in plan.cells if cell.is_plain]
    web = [cell for cell in plan.cells if cell.mode in WEB]
    load = [cell for cell in plan.cells if cell.mode in ("paced", "saturated")]
    others = [cell for cell in plan.cells if cell not in (*turns, *web, *load)]
    variants = ["untraced", *plan.variants]
    return {
        "header": header(plan, measured),
        "rows": [turn_row(cell, name, measured) for cell in turns for name in variants if measured.of(cell, name)],
        "cells": [
            turn_row(cell, name, measured) | {"concurrency": cell.concurrency, "checkpointer": cell.checkpointer}
            for cell in others
            for name in variants
            if measured.of(cell, name)
        ],
        "web": [turn_row(cell, name, measured) for cell in web for name in variants if measured.of(cell, name)],
        "load": [load_row(cell, name, measured) for cell in load for name in variants if measured.of(cell, name)],
        "missing": measured.missing,
    }


def replaced(before: Row, found: Row) -> Row:
    """Return earlier results with these in the place of theirs, of the cells that were measured now.

    A ratio is taken within its cell, so that cells may come from different runs.
    """
    joined = {name: found[name] or before[name] for name in ("rows", "cells", "web", "load")}
    versions = before["header"]["versions"] | found["header"]["versions"]
    return before | joined | {"header": found["header"] | {"versions": versions}, "missing": before["missing"]}


def turn_row(cell: Cell, variant: str, measured: Measured) -> Row:
    """Return the figures of a turn, beside those of the untraced one; the spread is that of the rounds' ratios."""
    samples, bases = measured.of(cell, variant), measured.of(cell, "untraced")
    cpu, loop = (_undisturbed(samples, key) for key in ("cpu_ms", "loop_ms"))
    base_cpu, base_loop = (_undisturbed(bases, key) for key in ("cpu_ms", "loop_ms"))
    rounds = [own["cpu_ms"] / base["cpu_ms"] for own, base in zip(samples, bases, strict=False)]
    return {
        "variant": variant,
        "mode": cell.mode,
        "history": cell.history,
        "cpu_ratio": round(cpu / base_cpu, 2),
        "cpu_spread": [round(min(rounds), 2), round(max(rounds), 2)],
        "loop_ratio": round(loop / base_loop, 2),
        "added_ms": round(cpu - base_cpu, 2),
        "cpu_ms": round(cpu, 2),
        "kb": _median(samples, "kb", 1),
        "kb_sent": _median(samples, "kb_sent", 1),
        "spans": _median(samples, "spans", 1),
        "rss_mb": _median(samples, "rss_mb", 0),
        "import_ms": _median(samples, "import_ms", 0),
        "rounds": len(samples),
    }


def load_row(cell: Cell, variant: str, measured: Measured) -> Row:
    """Return the figures of many users at once."""
    samples = measured.of(cell, variant)
    first = {which: sorted(sample["first_ms"][which] for sample in samples) for which in ("p50", "p95", "p99")}
    return {
        "variant": variant,
        "mode": cell.mode,
        "users": cell.concurrency,
        "first_token_ms": {which: round(median(values)) for which, values in first.items()},
        "first_token_spread": {which: [round(values[0]), round(values[-1])] for which, values in first.items()},
        "gc_longest_ms": round(max(sample["gc"]["longest_ms"] for sample in samples), 1),
        "gc_ms_per_s": round(median(sample["gc"]["all_ms"] for sample in samples) / cell.seconds, 1),
        "turns_per_s": _median(samples, "turns_per_s", 1),
        "spans": _median(samples, "spans", 2),
        "dropped": sum(sample.get("dropped", 0) for sample in samples),
        "rounds": len(samples),
    }


def header(plan: Plan, measured: Measured) -> Row:
    """Return when and on what it was measured."""
    versions: dict[str, str] = {}
    for samples in measured.samples.values():
        versions |= samples[0]["versions"] if samples else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "load_average": round(os.getloadavg()[2], 1),
        "rounds": plan.rounds,
        "peer_rounds": plan.peer_rounds,
        "python": platform.python_version(),
        "versions": dict(sorted(versions.items())),
    }


def _undisturbed(samples: Sequence[Sample], key: str) -> float:
    """Return what a turn takes where little else goes on: the lower quartile of all parts of all rounds.

    What other work of the machine does to a turn's CPU time only adds to it.
    """
    parts = sorted(part for sample in samples for part in sample["parts"][key])
    return parts[len(parts) // 4]


def _median(samples: Sequence[Sample], key: str, digits: int) -> float:
    return round(median(sample[key] for sample in samples), digits)
