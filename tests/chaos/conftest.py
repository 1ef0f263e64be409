from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import Backend, Fleet, fleet

Figures = dict[str, Any]
_MEASURED = "figures"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Fleet, Backend]]:
    with fleet(tmp_path) as both:
        yield both


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """What a test measures; printed at the end of the session."""
    row: Figures = {}
    request.node.user_properties.append((_MEASURED, row))
    return row


def pytest_terminal_summary(terminalreporter: Any) -> None:
    ended = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    for report in ended:
        row = dict(report.user_properties).get(_MEASURED) if report.when == "call" else None
        if row:
            told = ", ".join(f"{what} {value}" for what, value in row.items())
            terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {told}")
