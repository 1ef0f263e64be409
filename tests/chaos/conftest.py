from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fleet import Backend, Fleet, fleet


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Fleet, Backend]]:
    with fleet(tmp_path) as both:
        yield both
