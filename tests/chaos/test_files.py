"""Files at full length."""

from pathlib import Path

import pytest

from tests.app.test_files import MEGABYTE, stream_through

pytestmark = pytest.mark.chaos


def test_a_gigabyte_takes_little_memory(tmp_path: Path) -> None:
    """A gigabyte streams in and out in flat memory."""
    stream_through(tmp_path, 1024 * MEGABYTE)
