"""The results as tables of Markdown, which are printed and written into the documents alike."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from bench.tracing import WHOLE

Row = dict[str, Any]

NAMES = {
    "off": "ours, `off`",
    "sampled_out": "ours, `sampled_out`",
    "default": "ours, `default`",
    "recorder": "ours, `recorder`",
    WHOLE: "ours, `recorder`, no budgets",
    "openinference": "OpenInference, stock",
    "langfuse": "Langfuse's handler",
    "langsmith": "LangSmith",
    "logfire": "Logfire",
    "traceloop": "Traceloop",
    "openlit": "OpenLIT",
    "phoenix": "Phoenix",
    "mlflow": "MLflow",
    "opik": "Opik",
}


def tables(results: Row) -> str:
    """Return all of them, each under a line that says what it shows."""
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
    """Return a table, its columns aligned."""
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
    """Return a table of what does not depend on the cell, taken from the last one."""
    last = {row["variant"]: row for row in rows}
    body = []
    for name in ["untraced", *_named(rows)]:
        row = last[name]
        body.append(
            [NAMES.get(name, name), f"{row['spans']:g}", f"{row['rss_mb']:.0f} MB", f"{row['import_ms']:.0f} ms"]
        )
    return table(["", "spans", "memory", "import"], body)


def others(results: Row) -> str:
    """Return a table of our variants in the cells that the peers have no part in."""
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
    """Return a list of the variants that have no figures, or not all, and why."""
    return "\n".join(f"- {NAMES[name]}: {reason}" for name, reason in results["missing"].items())


def _titled(title: str, text: str) -> list[str]:
    return [title, text] if text else []
