"""Versions of a conversation: a message that is asked again, or edited, begins a branch after what precedes it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from fastapi import HTTPException
from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph

from app.database.branches import Branches, BranchRun, checkpoint_thread, on_branch
from app.database.outcomes import Outcomes
from app.database.thread_store import RunRecord, ThreadStore
from app.schema import UserInput
from telemetry import suppress_instrumentation


@dataclass(frozen=True)
class Conversation:
    """The runs of the branch that is shown and of the thread, oldest first; of each its versions, if several."""

    branch: str | None
    runs: Sequence[RunRecord]
    all_runs: Sequence[RunRecord]
    versions: Mapping[str, Sequence[str]]

    def versions_of(self, run_id: str) -> Sequence[str]:
        """Return all versions of a run, also where it is the only one."""
        return self.versions.get(run_id) or [run_id]


@dataclass(frozen=True)
class Versions:
    """The branches of all threads."""

    store: ThreadStore
    branches: Branches
    outcomes: Outcomes

    async def replaced_run(self, thread_id: str, request: UserInput) -> RunRecord | None:
        """Return the run that the request replaces, None if it replaces none.

        Raise 404 if the thread has no such run, 409 if it answered a question, and therefore has no message to replace.
        """
        if request.replaces is None:
            return None
        run = await self.store.get_run(request.replaces)
        if run is None or run.thread_id != thread_id:
            raise HTTPException(404, f"There is no run {request.replaces} on thread {thread_id}.")
        if run.resumed:
            raise HTTPException(409, f"Run {run.run_id} answered a question: replace the run that asked it.")
        return run

    async def begin(
        self, run_id: str, graph: CompiledStateGraph, thread_id: str, replaced: RunRecord | None
    ) -> CompiledStateGraph:
        """Return the graph on the branch of a run that begins: a new one if it replaces another, or the shown one.

        It may be repeated. Raise 409 if the replaced run's messages are no longer in the thread.
        """
        if replaced is None:
            branch = await self.branches.of_run(run_id) or await self.branches.shown(thread_id)
            if branch:
                await self.branches.add(BranchRun(run_id, thread_id, branch))
            return on_branch(graph, thread_id, branch)
        earlier = (await self.branches.of_thread(thread_id)).get(replaced.run_id)
        first = (earlier and earlier.replaces) or replaced.run_id
        messages = await self._messages_before(graph, replaced)
        # Before its checkpoint is written: a thread is deleted with the branches that are stored.
        await self.branches.add(BranchRun(run_id, thread_id, run_id, first))
        graph, config = on_branch(graph, thread_id, run_id), _config(thread_id)
        with suppress_instrumentation():
            if messages and (await graph.aget_state(config)).created_at is None:
                await graph.aupdate_state(config, {"messages": messages}, as_node=START)
        return graph

    async def show_branch_of(self, thread_id: str, run_id: str) -> None:
        """Show the branch of a run that has begun."""
        if branch := await self.branches.of_run(run_id):
            await self.branches.show(thread_id, branch)

    async def show(self, thread_id: str, run_id: str) -> None:
        """Show the conversation with this run that was continued last; raise 404 if the thread has no such run."""
        found, rows = await self.store.runs_of(thread_id), await self.branches.of_thread(thread_id)
        lineages = {branch: _lineage(found, rows, branch) for branch in (None, *{row.branch for row in rows.values()})}
        with_run = {branch: runs for branch, runs in lineages.items() if run_id in {run.run_id for run in runs}}
        if not with_run:
            raise HTTPException(404, f"There is no run {run_id} on thread {thread_id}.")
        await self.branches.show(thread_id, max(with_run, key=lambda branch: with_run[branch][-1].created))

    async def conversation(self, thread_id: str) -> Conversation:
        """Return the conversation that is shown."""
        return await self.conversation_on(thread_id, await self.branches.shown(thread_id))

    async def conversation_on(self, thread_id: str, branch: str | None) -> Conversation:
        """Return the conversation on a branch."""
        found, rows = await self.store.runs_of(thread_id), await self.branches.of_thread(thread_id)
        groups = _groups(found, rows)
        versions = {run.run_id: groups[first] for run in found if (first := _first_version(run.run_id, rows)) in groups}
        return Conversation(branch, _lineage(found, rows, branch), found, versions)

    async def latest_run(self, thread_id: str) -> RunRecord | None:
        """Return the latest run of the conversation that is shown, None before the first one."""
        if not await self.branches.of_thread(thread_id):
            return await self.store.latest_run(thread_id)
        runs = (await self.conversation(thread_id)).runs
        return runs[-1] if runs else None

    async def graph_of(self, graph: CompiledStateGraph, thread_id: str) -> CompiledStateGraph:
        """Return the graph on the branch that is shown."""
        return on_branch(graph, thread_id, await self.branches.shown(thread_id))

    async def graph_of_run(self, graph: CompiledStateGraph, run: RunRecord) -> CompiledStateGraph:
        """Return the graph on the branch of this run."""
        return on_branch(graph, run.thread_id, await self.branches.of_run(run.run_id))

    async def checkpoint_thread_of(self, thread_id: str, run_id: str) -> str:
        """Return the id under which LangGraph has the run's branch."""
        return checkpoint_thread(thread_id, await self.branches.of_run(run_id))

    async def _messages_before(self, graph: CompiledStateGraph, run: RunRecord) -> Sequence[AnyMessage]:
        graph = await self.graph_of_run(graph, run)
        with suppress_instrumentation():
            state = await graph.aget_state(_config(run.thread_id))
        messages: Sequence[AnyMessage] = state.values.get("messages", [])
        run_ids = await self.outcomes.messages_of(run.thread_id)
        for index, message in enumerate(messages):
            if run_ids.get(message.id or "") == run.run_id:
                return messages[:index]
        if run.run_id not in run_ids.values() and run.position <= len(messages):
            return messages[: run.position]  # an earlier release has stored it
        raise HTTPException(409, f"The messages of run {run.run_id} are no longer in the thread: ask again at its end.")


def _config(thread_id: str) -> RunnableConfig:
    return RunnableConfig(configurable={"thread_id": thread_id})


def _lineage(runs: Sequence[RunRecord], rows: Mapping[str, BranchRun], branch: str | None) -> Sequence[RunRecord]:
    """Return the runs of a branch, oldest first, with those that it has in common with the branches it began on."""
    by_branch = _by_branch(runs, rows)
    lineage, replaced = list(by_branch.get(branch, ())), branch and rows[branch].replaces
    while replaced:
        branch = _branch_of(replaced, rows)
        before = takewhile(lambda run, end=replaced: run.run_id != end, by_branch.get(branch, ()))
        lineage, replaced = [*before, *lineage], branch and rows[branch].replaces
    return lineage


def _by_branch(runs: Iterable[RunRecord], rows: Mapping[str, BranchRun]) -> Mapping[str | None, Sequence[RunRecord]]:
    found: dict[str | None, list[RunRecord]] = {}
    for branch, group in groupby(runs, key=lambda run: _branch_of(run.run_id, rows)):
        found.setdefault(branch, []).extend(group)
    return found


def _branch_of(run_id: str, rows: Mapping[str, BranchRun]) -> str | None:
    return rows[run_id].branch if run_id in rows else None


def _first_version(run_id: str, rows: Mapping[str, BranchRun]) -> str:
    return (rows[run_id].replaces if run_id in rows else None) or run_id


def _groups(runs: Sequence[RunRecord], rows: Mapping[str, BranchRun]) -> Mapping[str, Sequence[str]]:
    """Return all versions of each run that has several, by the first one, oldest first."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(_first_version(run.run_id, rows), []).append(run.run_id)
    return {first: versions for first, versions in found.items() if len(versions) > 1}
