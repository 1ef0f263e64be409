"""What docs/security.md and docs/privacy.md say is held by a test is held by one."""

import re

import pytest

from tests.processes import ROOT

NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.py|…)(?:::(?P<test>\w+))?`")


def named() -> list[tuple[str, str | None]]:
    """Return each file and test that the pages name; dots stand for the file named before."""
    found: list[tuple[str, str | None]] = []
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("security.md", "privacy.md"))
    for match in NAMED.finditer(pages):
        found.append((found[-1][0] if match["file"] == "…" else match["file"], match["test"]))
    return found


@pytest.mark.parametrize(("file", "test"), named())
def test_each_promise_has_its_test(file: str, test: str | None) -> None:
    """The file is there, and so is the test in it."""
    text = (ROOT / file).read_text()

    assert test is None or re.search(rf"^(async )?def {test}\(", text, re.MULTILINE)
