"""Every private name of DBOS that is used."""

import time
from types import SimpleNamespace

from dbos import _sys_db

# The longest delay between the engine's attempts to reach the database; by default it doubles it up to 90 seconds.
MAX_WAIT_S = 2.0


def limit_waits() -> None:
    """Make the engine continue within `MAX_WAIT_S` after its database is back, however long the outage was."""
    limited = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, MAX_WAIT_S))})
    setattr(_sys_db, "time", limited)  # noqa: B010 - pyright knows no other way to replace a module's import
