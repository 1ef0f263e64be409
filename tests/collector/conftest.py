import os
from collections.abc import Iterator

import pytest

from telemetry.testing import Receiver
from tests.collector.otelcol import BINARY


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not BINARY.exists():
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("the collector is not built: make collector")


@pytest.fixture
def backend() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
