"""One attempt at a background run: from its last checkpoint, with heartbeats, each tool's answer logged."""

import asyncio
import json
import logging
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from sqlalchemy.exc import SQLAlchemyError

from app.messages import since_last_human, to_chat_message, without
from app.runs.store import BackgroundRun, BackgroundRunStore, StaleAttemptError
from app.runs.tool_call_log import tool_call_log
from app.schema import ChatMessage, MessageEvent
from app.turns import AgentExecution, AgentTurn, messages_of
from telemetry.heartbeat import Heartbeat
from telemetry.span import one_line

logger = logging.getLogger(__name__)


@dataclass
class AttemptExecution(AgentExecution):
    """One attempt of an agent at a background run; it is also the run's tool call log."""

    run: BackgroundRun = field(kw_only=True)
    store: BackgroundRunStore = field(kw_only=True)
    heartbeat_s: float = field(kw_only=True)

    async def work(self, turn: AgentTurn) -> None:
        """Run the agent to its end or to its next question, with heartbeats."""
        heartbeat = Heartbeat(self.heartbeat_s)
        beating = asyncio.create_task(self._beat(turn, heartbeat))
        tool_call_log.set(self)
        status = "failed"
        try:
            await self._resume(turn)
            status = "waiting" if turn.waits else "completed"
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        finally:
            beating.cancel()
            heartbeat.beat(status, **turn.counts)

    async def begin_tool_call(self, call_id: str) -> tuple[bool, ToolMessage | None]:
        """Return whether the call was begun before, and its answer if there is one; log that it begins."""
        begun, body = await self.store.begin_tool_call(self.run, call_id)
        return begun, ToolMessage.model_validate_json(body) if body else None

    async def save_answer(self, call_id: str, answer: ToolMessage) -> None:
        """Log the answer of a tool call."""
        await self.store.save_answer(self.run, call_id, answer.model_dump_json())

    async def _resume(self, turn: AgentTurn) -> None:
        """Run the graph from its last checkpoint, or from its beginning in the first attempt."""
        begun = (self.state.metadata or {}).get("run_id") == self.run.run_id
        if begun:
            await self._emit_unsent_messages(turn)
            # `state.next` is also empty if a task's writes were saved and the next checkpoint was not.
            if not self.state.tasks:
                return
        await self.stream_graph(turn, None if begun else self.graph_input(), durability="sync")

    async def _emit_unsent_messages(self, turn: AgentTurn) -> None:
        """Emit the messages that an earlier attempt has stored but not sent."""
        events = [json.loads(body) for _, body in await self.store.events_after(self.run.run_id, 0)]
        sent = [ChatMessage.model_validate(e["content"]) for e in events if e["type"] == "message"]
        trace_id = turn.trace.trace_id if turn.trace else None
        for message in since_last_human(messages_of(self.state)):
            self.new_ids.add(message.id or "")
            if isinstance(message, HumanMessage):
                continue
            if isinstance(message, AIMessage) and message.text:
                turn.answer = message.text
            content = to_chat_message(message, self.run.run_id, trace_id)
            if content and without([content], sent):
                await turn.emit(MessageEvent(content=content))

    async def _beat(self, turn: AgentTurn, heartbeat: Heartbeat) -> None:
        while True:
            heartbeat.beat("running", **turn.counts)
            await asyncio.sleep(self.heartbeat_s)
            try:
                await self.store.beat(self.run)
            except StaleAttemptError:
                turn.cancel("fenced")
                return
            except SQLAlchemyError as error:
                logger.warning("the heartbeat of run %s cannot be stored: %s", self.run.run_id, one_line(error))
