"""Branches of threads, which begin where a message is asked again: which run is on which, and which one is shown.

The messages of each branch are a LangGraph thread of its own, so that a branch needs its latest checkpoint only.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.graph.state import CompiledStateGraph
from sqlalchemy import Column, String, Table, delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.database.thread_store import insert_into, runs, tables

# Of runs on another branch than a thread's first one.
run_branches = Table(
    "run_branches",
    tables,
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False, index=True),
    Column("branch", String, nullable=False),
    Column("replaces", String),
)
# What the user has chosen for a thread; without a row, or with null, its first branch is shown.
shown_branches = Table(
    "shown_branches",
    tables,
    Column("thread_id", String, primary_key=True),
    Column("branch", String),
)


@dataclass(frozen=True)
class BranchRun:
    """A run on a branch, which has the id of its first run; that one `replaces` the run that was asked first."""

    run_id: str
    thread_id: str
    branch: str
    replaces: str | None = None


@dataclass(frozen=True)
class Branches:
    """The branches in the service's database."""

    engine: AsyncEngine

    async def add(self, run: BranchRun) -> None:
        """Store the branch of a run, once."""
        async with self.engine.begin() as connection:
            await connection.execute(
                insert_into(self.engine)(run_branches).values(asdict(run)).on_conflict_do_nothing()
            )

    async def of_thread(self, thread_id: str) -> Mapping[str, BranchRun]:
        """Return the thread's runs on other branches than its first one, by the run's id."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(select(run_branches).where(run_branches.c.thread_id == thread_id))
            return {row["run_id"]: BranchRun(**row) for row in rows.mappings()}

    async def of_run(self, run_id: str) -> str | None:
        """Return the branch of a run, None for a thread's first one."""
        async with self.engine.connect() as connection:
            return await connection.scalar(select(run_branches.c.branch).where(run_branches.c.run_id == run_id))

    async def shown(self, thread_id: str) -> str | None:
        """Return the branch that is shown, None for the thread's first one."""
        branch = shown_branches.c.branch
        # Its first run may have been refused.
        query = select(branch).where(shown_branches.c.thread_id == thread_id, exists().where(runs.c.run_id == branch))
        async with self.engine.connect() as connection:
            return await connection.scalar(query)

    async def show(self, thread_id: str, branch: str | None) -> None:
        """Store which branch is shown."""
        row = {"thread_id": thread_id, "branch": branch}
        statement = insert_into(self.engine)(shown_branches).values(row)
        async with self.engine.begin() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["thread_id"], set_=row))

    async def checkpoint_threads(self, thread_id: str) -> Sequence[str]:
        """Return the ids under which LangGraph has the thread's branches."""
        branches = {run.branch for run in (await self.of_thread(thread_id)).values()}
        return [checkpoint_thread(thread_id, branch) for branch in (None, *sorted(branches))]


async def delete_branches(connection: AsyncConnection, thread_id: str) -> None:
    """Delete what is stored of the thread's branches, except their checkpoints."""
    for table in (run_branches, shown_branches):
        await connection.execute(delete(table).where(table.c.thread_id == thread_id))


def checkpoint_thread(thread_id: str, branch: str | None) -> str:
    """Return the id under which LangGraph has this branch; no id of a thread contains an @."""
    return f"{thread_id}@{branch}" if branch else thread_id


def thread_of_checkpoints(checkpoint_thread_id: str) -> str:
    """Return the thread whose branch has this id in LangGraph."""
    return checkpoint_thread_id.partition("@")[0]


def on_branch(graph: CompiledStateGraph, thread_id: str, branch: str | None) -> CompiledStateGraph:
    """Return the graph with the checkpoints of this branch of the thread."""
    if branch is None:
        return graph
    assert isinstance(graph.checkpointer, BaseCheckpointSaver)  # noqa: S101 - as the agents are built
    saver = BranchSaver(graph.checkpointer, thread_id, checkpoint_thread(thread_id, branch))
    return graph.copy({"checkpointer": saver})


def with_saver(
    graph: CompiledStateGraph, wrap: Callable[[BaseCheckpointSaver[Any]], BaseCheckpointSaver[Any]]
) -> CompiledStateGraph:
    """Return the graph with its saver wrapped, beneath the branch that it is on."""
    saver = graph.checkpointer
    assert isinstance(saver, BaseCheckpointSaver)  # noqa: S101 - as the agents are built
    return graph.copy({"checkpointer": saver.wrapping(wrap) if isinstance(saver, BranchSaver) else wrap(saver)})


class BranchSaver(BaseCheckpointSaver[Any]):
    """Wraps a saver: the checkpoints of one thread are those of a branch, and the agent sees the thread's own id."""

    def __init__(self, saver: BaseCheckpointSaver[Any], thread_id: str, branch_thread_id: str) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._thread_id = thread_id
        self._branch_thread_id = branch_thread_id

    def wrapping(self, wrap: Callable[[BaseCheckpointSaver[Any]], BaseCheckpointSaver[Any]]) -> "BranchSaver":
        """Return the same branch of the wrapped saver."""
        return BranchSaver(wrap(self._saver), self._thread_id, self._branch_thread_id)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the branch's checkpoint."""
        found = await self._saver.aget_tuple(self._of_branch(config))
        return found and self._of_thread(found)

    async def alist(self, config: RunnableConfig | None, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        """Yield the branch's checkpoints."""
        async for found in self._saver.alist(config and self._of_branch(config), **kwargs):
            yield self._of_thread(found)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save the checkpoint."""
        saved = await self._saver.aput(self._of_branch(config), checkpoint, metadata, new_versions)
        return _with_thread(saved, self._thread_id)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save the writes."""
        await self._saver.aput_writes(self._of_branch(config), writes, task_id, task_path)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """Return the saver's next version."""
        return self._saver.get_next_version(current, channel)

    def _of_branch(self, config: RunnableConfig) -> RunnableConfig:
        return _with_thread(config, self._branch_thread_id)

    def _of_thread(self, found: CheckpointTuple) -> CheckpointTuple:
        parent = found.parent_config and _with_thread(found.parent_config, self._thread_id)
        return found._replace(config=_with_thread(found.config, self._thread_id), parent_config=parent)


def _with_thread(config: RunnableConfig, thread_id: str) -> RunnableConfig:
    return {**config, "configurable": {**config.get("configurable", {}), "thread_id": thread_id}}
