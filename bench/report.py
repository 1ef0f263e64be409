"""Turn samples into the output of a run: figures, tables, `results.json`, a section of a document, a picture."""

import json
import os
import platform
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from bench.matrix import WEB, Cell
from bench.plot import plot
from bench.runner import ROOT, Measured, Plan, Sample
from bench.variants import NAMES

Row = dict[str, Any]

RESULTS = ROOT / "bench" / "results.json"
DOCUMENT = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "bench.svg"
HEADING = "## Measured"
SECTION = re.compile(rf"^{HEADING}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def results(plan: Plan, measured: Measured) -> dict[str, Any]:
    """Return the rows of a run, and a description of its machine and versions."""
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


def replaced(before: Row, new: Row) -> Row:
    """Return earlier results, with newly measured cells replaced.

    A ratio is taken within its cell, so that cells may come from different runs.
    """
    joined = {name: new[name] or before[name] for name in ("rows", "cells", "web", "load")}
    versions = before["header"]["versions"] | new["header"]["versions"]
    return before | joined | {"header": new["header"] | {"versions": versions}, "missing": before["missing"]}


def turn_row(cell: Cell, variant: str, measured: Measured) -> Row:
    """Return the figures of a turn, compared with the untraced one; the spread is that of the rounds' ratios."""
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
    """Return the date, the machine and the versions of a run."""
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
    """Return the time of a turn on a quiet machine: the lower quartile of all parts of all rounds.

    Other work of the machine only ever adds to a turn's CPU time.
    """
    parts = sorted(part for sample in samples for part in sample["parts"][key])
    return parts[len(parts) // 4]


def _median(samples: Sequence[Sample], key: str, digits: int) -> float:
    return round(median(sample[key] for sample in samples), digits)


def tables(results: Row) -> str:
    """Return all tables, each below its title."""
    rows = results["rows"]
    parts = [
        "CPU time of the whole process a turn, untraced = 1 (least to most of the rounds):",
        across(rows, lambda row: f"{row['cpu_ratio']:.2f} ({row['cpu_spread'][0]:.2f}-{row['cpu_spread'][1]:.2f})"),
        "CPU time of the event loop's thread, untraced = 1:",
        across(rows, lambda row: f"{row['loop_ratio']:.2f}"),
        "Added CPU time, milliseconds a turn:",
        across(rows, lambda row: f"{row['added_ms']:.1f}"),
        "KB a turn, and as sent:",
        across(rows, lambda row: f"{row['kb']:.0f} ({row['kb_sent']:.0f})"),
        "Spans a turn, memory of the process at its peak, CPU time to import and set up:",
        processes(rows),
        *_titled("Many at once, or saved by a checkpointer; CPU and event loop, untraced = 1:", others(results)),
        *_titled("A request that is answered by 200 events, and a call with httpx:", web(results)),
        *_titled("Users at once; milliseconds to the first token (least to most of the rounds):", load(results)),
        *_titled("Not measured:", missing(results)),
    ]  # fmt: skip
    return "\n\n".join(parts)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table with aligned columns."""
    widths = [max(len(cells[at]) for cells in [head, *body]) for at in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(cells, widths) for cells in [head, rule, *body])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"| {' | '.join([f'{cells[0]:<{widths[0]}}', *rest])} |"


def across(rows: Sequence[Row], shown: Callable[[Row], str]) -> str:
    """Return a table of the variants, a column for each cell."""
    cells = list(dict.fromkeys((row["mode"], row["history"]) for row in rows))
    found = {(row["variant"], row["mode"], row["history"]): shown(row) for row in rows}
    body = [[NAMES[variant], *(found.get((variant, *cell), "") for cell in cells)] for variant in _named(rows)]
    return table(["", *(f"{mode} {history}" for mode, history in cells)], body)


def _named(rows: Sequence[Row]) -> list[str]:
    present = {row["variant"] for row in rows}
    return [variant for variant in NAMES if variant in present]


def processes(rows: Sequence[Row]) -> str:
    """Return a table of figures that do not depend on the cell."""
    last = {row["variant"]: row for row in rows}
    body = []
    for name in ["untraced", *_named(rows)]:
        row = last[name]
        body.append(
            [NAMES.get(name, name), f"{row['spans']:g}", f"{row['rss_mb']:.0f} MB", f"{row['import_ms']:.0f} ms"]
        )
    return table(["", "spans", "memory", "import"], body)


def others(results: Row) -> str:
    """Return a table of our variants in the cells that other tracers are not measured in."""
    rows = [row for row in results["cells"] if row["variant"] in NAMES]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    body = []
    for name, group in groupby(rows, key=_cell_name):
        found = {row["variant"]: f"{row['cpu_ratio']:.2f}, {row['loop_ratio']:.2f}" for row in group}
        body.append([name, *(found.get(variant, "") for variant in variants)])
    return table(["", *(f"`{variant}`" for variant in variants)], body) if body else ""


def _cell_name(row: Row) -> str:
    many = f", {row['concurrency']} at once" if row["concurrency"] > 1 else ""
    return f"{row['mode']} {row['history']}{many}{', saved' if row['checkpointer'] else ''}"


def web(results: Row) -> str:
    """Return a table of requests and calls."""
    body = [
        [f"{row['mode']}, {row['variant']}", f"{row['cpu_ms']:.2f}", f"{row['added_ms']:.2f}", f"{row['spans']:g}"]
        for row in results["web"]
    ]
    return table(["", "CPU ms", "added", "spans"], body) if body else ""


def load(results: Row) -> str:
    """Return a table of many users."""
    body = [
        [
            f"{row['mode']}, {row['variant']}",
            *(_with_spread(row, which) for which in ("p50", "p95", "p99")),
            f"{row['gc_longest_ms']:.0f} ms",
            f"{row['turns_per_s']:.1f}",
            f"{row['spans']:.2f}",
            str(row["dropped"]),
        ]
        for row in results["load"]
    ]
    head = ["", "p50", "p95", "p99", "longest GC", "turns/s", "spans a turn", "dropped"]
    return table(head, body) if body else ""


def _with_spread(row: Row, which: str) -> str:
    low, high = row["first_token_spread"][which]
    return f"{row['first_token_ms'][which]} ({low}-{high})"


def missing(results: Row) -> str:
    """Return a list of the variants without figures, with the reason."""
    return "\n".join(f"- {NAMES[name]}: {reason}" for name, reason in results["missing"].items())


def _titled(title: str, text: str) -> list[str]:
    return [title, text] if text else []


def write_results(results: dict[str, Any], path: Path = RESULTS) -> None:
    """Write the results as JSON, one row a line."""
    path.write_text(as_json(results))


def as_json(results: dict[str, Any]) -> str:
    """Return the results as JSON that is readable, also as a diff."""
    parts = [f"{json.dumps(name)}: {_lines(value)}" for name, value in results.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n  " + ",\n  ".join(json.dumps(each) for each in value) + "\n]"


def write_document(results: dict[str, Any]) -> None:
    """Write the picture, and the section of the document with the tables."""
    PICTURE.write_text(plot(results["rows"]))
    before = DOCUMENT.read_text() if DOCUMENT.exists() else f"# What tracing costs\n\n{HEADING}\n"
    if not SECTION.search(before):
        before = f"{before.rstrip()}\n\n{HEADING}\n"
    DOCUMENT.write_text(SECTION.sub(lambda _: section(results), before))


def section(results: dict[str, Any]) -> str:
    """Return the section of the document, from the results alone."""
    texts = [f"{title}:\n\n```text\n{text}\n```" for title, text in results.get("texts", {}).items()]
    parts = [HEADING, _how(results["header"]), "![CPU time of a turn](images/bench.svg)", tables(results), *texts]
    return "\n\n".join(parts) + "\n\n"


def _how(header: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return (
        "Written by `make bench`; [`bench/results.json`](../bench/results.json) has the same figures. "
        f"{header['date']}, {header['cores']} cores, {header['memory_gb']} GB, "
        f"load average {header['load_average']:g}, Python {header['python']}; {header['rounds']} rounds "
        f"({header['peer_rounds']} of the peers). CPU times are the lower quartile of all parts of all rounds, since "
        "other work on the machine only adds to them. Brackets show the range of the rounds' own ratios. On a machine "
        "that does other work as well, compare the ratios, not the milliseconds.\n\n"
        "A turn is a question, a model's call of one tool, and the answer in 55 chunks. The model answers at once, so "
        "that only the cost of LangGraph and of tracing remains. `stream 40` is a streamed conversation that starts "
        "with 40 messages of some 250 characters each and grows by three turns. Each variant runs in a fresh process, "
        "the rounds one after the other; everything is sent to a local sink before the clock stops.\n\n"
        f"Versions: {versions}."
    )
