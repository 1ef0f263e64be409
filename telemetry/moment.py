"""Points in time, in UTC unless they have another time zone."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator

# In nanoseconds since 1970, as in spans: a later time does not fit into a database's integer.
LAST_TIME = 2**63 - 1


def as_utc(moment: datetime) -> datetime:
    """Return the time in UTC; a time without a time zone is taken as UTC, since SQLite stores none."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def unix_nano(moment: datetime) -> int:
    """Return the time in nanoseconds since 1970, at most `LAST_TIME`."""
    return max(min(int(as_utc(moment).timestamp() * 10**6) * 1_000, LAST_TIME), 0)


Moment = Annotated[datetime, AfterValidator(as_utc)]
