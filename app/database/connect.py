"""Open the database of the settings."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.database.database import Database
from app.database.sqlite import DamagedFileError, FolderInUseError, open_sqlite
from app.settings import ServiceSettings
from telemetry.settings import SettingsError, unusable


def open_database(settings: ServiceSettings) -> AbstractAsyncContextManager[Database]:
    """Return Postgres if it is configured, otherwise SQLite; it is opened on entering."""
    if settings.postgres_url is None:
        return open_sqlite(settings.data_dir)
    from app.database.postgres import open_postgres  # its driver takes time to load, and SQLite does not need it

    return open_postgres(settings.postgres_url, settings.postgres_pooler_url)


@contextmanager
def unusable_database(settings: ServiceSettings) -> Iterator[None]:
    """Raise `SettingsError`, in one sentence, if the body cannot use the database."""
    try:
        yield
    except DamagedFileError as error:
        advice = "restore it from a backup, or move it away to start with an empty one"
        raise SettingsError(f"{error}: {advice}.") from error
    except FolderInUseError as error:
        advice = "end it first, name another folder, or set DATABASE_URL for several processes on one database"
        raise SettingsError(f"DATA_DIR={settings.data_dir} is in use by another process: {advice}.") from error
    except (OSError, sqlite3.DatabaseError, SQLAlchemyError) as error:
        cause = (isinstance(error, DBAPIError) and error.orig) or error
        if settings.database_url is None:
            raise settings.unusable_data_dir(cause) from error
        raise unusable("DATABASE_URL", cause, "start the server, or correct its address, name or password") from error
