from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import Backend, Fleet, fleet

Figures = dict[str, Any]
_table: list[tuple[str, Figures]] = []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Fleet, Backend]]:
    with fleet(tmp_path) as both:
        yield both


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """What a test measures; printed at the end of the session."""
    row: Figures = {}
    _table.append((request.node.name, row))
    return row


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name, row in _table:
        if row:
            terminalreporter.write_line(f"{name}: " + ", ".join(f"{what} {value}" for what, value in row.items()))
