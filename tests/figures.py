"""What tests measure, printed at the end of the session, also when workers of pytest-xdist have measured it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

Figures = dict[str, Any]

_MEASURED = "figures"
# What is told of each outage, in one table.
COLUMNS = ("fault", "length", "replicas", "turns", "runs", "lost", "doubled", "stuck", "seconds to recover")


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """What a test measures; printed at the end of the session."""
    row: Figures = {}
    request.node.user_properties.append((_MEASURED, row))
    return row


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Report plain values only: a worker cannot send others, such as a `Counter`."""
    report: Any = yield
    report.user_properties = [
        (name, json.loads(json.dumps(value, default=str)) if name == _MEASURED else value)
        for name, value in item.user_properties
    ]
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a line for each test that has measured something, and the table of the outages."""
    ended = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    table: list[Figures] = []
    for report in ended:
        row = dict(report.user_properties).get(_MEASURED) if report.when == "call" else None
        if row:
            told = ", ".join(f"{what} {value}" for what, value in row.items())
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {told}")
            table += [row] if row.keys() >= set(COLUMNS) else []
    if table:
        terminalreporter.write_line("")
        for line in outage_table(table):
            terminalreporter.write_line(line)


def outage_table(rows: Sequence[Figures]) -> list[str]:
    """The lines of a Markdown table of outages, in the order of their faults and lengths."""
    ordered = sorted(rows, key=lambda row: (row["fault"], row["length"], row["replicas"]))
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([row[column] for column in COLUMNS] for row in ordered)]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]
