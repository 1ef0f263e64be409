"""The watch over all tests sees what it is for."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.leaks import CALLS, in_spools, watch
from tests.telemetry.planted import LETTERS, encoded, finished

CLEAN = encoded(finished(attributes={"note": "a fine day"}))
LEAKING = encoded(finished(attributes={"note": f"ghp_{LETTERS[:36]}"}))


class Spool:
    """What takes records as a store does."""

    def append(self, records: Sequence[tuple[float, bytes]]) -> int:
        return len(records)


def test_a_secret_on_its_way_to_a_spool_is_seen() -> None:
    """A span that passed no stage is noticed among others, and what was called does what it does."""
    with pytest.MonkeyPatch.context() as patch, watch(patch, [(Spool, "append")]) as found:
        assert Spool().append([(1.0, CLEAN)]) == 1
        assert found == []
        assert Spool().append([(1.0, CLEAN), (2.0, LEAKING)]) == 2
        assert [call for call, _ in found] == ["Spool.append"]


def test_a_secret_in_the_file_of_a_spool_is_seen(tmp_path: Path) -> None:
    """What another process has written is found by its file."""
    file = tmp_path / "spool" / "a.db"
    file.parent.mkdir()
    file.write_bytes(CLEAN)
    assert in_spools(tmp_path) == []
    file.write_bytes(CLEAN + LEAKING)
    assert in_spools(tmp_path) == [file]
    file.unlink()


def test_each_call_is_there() -> None:
    """The calls that are watched exist under their names."""
    assert all(callable(getattr(owner, name)) for owner, name in CALLS)
