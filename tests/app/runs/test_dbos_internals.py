"""What is used of DBOS without its promise."""

from types import ModuleType

from dbos import _sys_db

WAITS = (
    "Background runs go on up to a minute and a half after the return of their database: "
    "dbos._sys_db no longer waits by `time.sleep` of its module."
)


def test_the_engine_waits_by_the_time_of_its_module() -> None:
    """Replaced there, its waits are limited, and nobody else's."""
    assert isinstance(vars(_sys_db).get("time"), ModuleType) or hasattr(vars(_sys_db).get("time"), "sleep"), WAITS
