"""What the service stores, as its database itself tells it, for tests of both kinds of database."""

import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from app.agents import AGENTS, Agent
from app.settings import ServiceSettings
from tests.service import service

# Which of SQLite's files has which table.
_CHECKPOINT_TABLES = ("checkpoints", "writes")
_SIZE = """
select sum(pg_total_relation_size(oid)) from pg_class
where relkind = 'r' and relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""


@dataclass(frozen=True)
class Storage:
    """A folder of the service, and its Postgres if it has one."""

    folder: Path
    url: str | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The settings that name it."""
        return {"DATA_DIR": str(self.folder), **({"DATABASE_URL": self.url} if self.url else {})}

    @property
    def settings(self) -> ServiceSettings:
        """The settings of a service on it."""
        return ServiceSettings.model_validate(self.variables)

    def service(self, agents: Mapping[str, Agent] = AGENTS, **settings: Any) -> AbstractContextManager[str]:
        """The address of a service on it."""
        return service(self.folder, agents, **({"DATABASE_URL": self.url} if self.url else {}), **settings)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query about one table, or of a change."""
        if self.url:
            with psycopg.connect(self.url) as connection:
                cursor = connection.execute(query)  # pyright: ignore[reportCallIssue, reportArgumentType] - text of the tests
                return cursor.fetchall() if cursor.description else []
        name = "checkpoints.db" if any(f" {table}" in query for table in _CHECKPOINT_TABLES) else "service.db"
        with closing(sqlite3.connect(self.folder / name)) as connection, connection:
            return connection.execute(query).fetchall()

    def count(self, table: str) -> int:
        """How many rows the table has."""
        return self.rows(f"select count(*) from {table}")[0][0]

    def size(self) -> int:
        """The bytes of the service's database: its files, or its tables once they are rewritten."""
        if not self.url:
            return sum(file.stat().st_size for file in self.folder.glob("*.db*"))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("vacuum full")
            row = connection.execute(_SIZE).fetchone()
        assert row
        return int(row[0])
