"""Parts of the machine that a test needs: without one it says how to get it, and under CI it fails."""

import os
from typing import NoReturn

import pytest


def missing(part: str, remedy: str) -> NoReturn:
    """Skip the test, or fail it where everything has to be there."""
    sentence = f"{part} is missing: {remedy}"
    pytest.fail(sentence) if os.environ.get("CI") == "true" else pytest.skip(sentence)
