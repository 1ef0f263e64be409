from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.app.storage import Storage
from tests.postgres import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def postgres_storage(postgres_server: str, tmp_path: Path) -> Storage:
    """An empty database in Postgres."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("drop database if exists stored with (force)")
        connection.execute("create database stored")
    return Storage(tmp_path, postgres_server.replace("/postgres", "/stored"))


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty database of each kind."""
    return Storage(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres_storage")
