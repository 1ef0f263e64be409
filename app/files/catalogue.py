"""The metadata of files in the database: a file exists once it is listed here."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, DateTime, Select, String, Table, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.thread_store import tables

files = Table(
    "files",
    tables,
    Column("file_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("user_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("type", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True)
class File:
    """The metadata of a file; its name is the user's own and not a path."""

    file_id: str
    thread_id: str
    user_id: str
    name: str
    size: int
    type: str
    sha256: str
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class Catalogue:
    """The files in the service's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, file: File) -> None:
        """List the file."""
        async with self._engine.begin() as connection:
            await connection.execute(insert(files).values(asdict(file)))

    async def find(self, file_id: str) -> File | None:
        """Return the file, None if there is none."""
        return next(iter(await self._read(select(files).where(files.c.file_id == file_id))), None)

    async def of_thread(self, thread_id: str) -> Sequence[File]:
        """Return the thread's files, oldest first."""
        return await self._read(select(files).where(files.c.thread_id == thread_id).order_by(files.c.created))

    async def existing(self, file_ids: Iterable[str]) -> set[str]:
        """Return the ids that are listed."""
        query = select(files.c.file_id).where(files.c.file_id.in_(list(file_ids)))
        async with self._engine.connect() as connection:
            return set((await connection.execute(query)).scalars())

    async def delete(self, file_id: str) -> None:
        """Delete the file from the list."""
        async with self._engine.begin() as connection:
            await connection.execute(delete(files).where(files.c.file_id == file_id))

    async def _read(self, query: Select) -> Sequence[File]:
        async with self._engine.connect() as connection:
            return [File(**row) for row in (await connection.execute(query)).mappings()]
