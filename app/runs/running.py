"""An agent at work on a background run: from its last checkpoint, with signs of life, each tool's answer kept."""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.types import StreamMode
from sqlalchemy.exc import SQLAlchemyError

from app.messages import to_chat
from app.runs.ledger import ledger
from app.runs.records import BackgroundRun, Fenced, RunRecords
from app.schema import ChatMessage, MessageEvent
from app.turns import AgentTurn, Answering
from telemetry.heartbeat import Heartbeat
from telemetry.span import one_line

logger = logging.getLogger(__name__)


@dataclass
class Running(Answering):
    """An agent at work on a background run, or at work on it again."""

    run: BackgroundRun = field(kw_only=True)
    records: RunRecords = field(kw_only=True)
    heartbeat_s: float = field(kw_only=True)

    async def work(self, turn: AgentTurn) -> None:
        """Run the agent to its end or to its next question, with signs of life."""
        signs = Heartbeat(self.heartbeat_s)
        beating = asyncio.create_task(self._beat(turn, signs))
        ledger.set(self)
        sign = "failed"
        try:
            await self._answer(turn)
            sign = "waiting" if turn.waits else "completed"
        except asyncio.CancelledError:
            sign = "cancelled"
            raise
        finally:
            beating.cancel()
            signs.beat(sign, **turn.counts)

    async def begin(self, call_id: str) -> tuple[bool, ToolMessage | None]:
        """Return whether the call was begun before, and its answer if there is one; note that it begins."""
        begun, body = await self.records.begin_call(self.run, call_id)
        return begun, ToolMessage.model_validate_json(body) if body else None

    async def keep(self, call_id: str, answer: ToolMessage) -> None:
        """Keep the answer."""
        await self.records.keep_answer(self.run, call_id, answer.model_dump_json())

    async def _answer(self, turn: AgentTurn) -> None:
        begun = (self.state.metadata or {}).get("run_id") == self.run.run_id
        if begun:
            await self._catch_up(turn)
        # A task may be left whose writes are saved while the next checkpoint is not: `next` does not tell.
        if begun and not self.state.tasks:
            return
        modes: list[StreamMode] = ["messages", "updates", "custom"]
        given = None if begun else self._input()
        chunks = self.graph.astream(given, self.config, stream_mode=modes, subgraphs=True, durability="sync")
        async with aclosing(cast("Any", chunks)):
            async for path, mode, chunk in chunks:
                for item in self._seen_by_clients(turn, mode, chunk, path):
                    await turn.emit(item)

    async def _catch_up(self, turn: AgentTurn) -> None:
        """Tell what the dead attempt had done and not told."""
        told = [json.loads(body) for _, body in await self.records.events(self.run.run_id, 0)]
        known = {_key(ChatMessage.model_validate(e["content"])) for e in told if e["type"] == "message"}
        for message in _of_this_run(self.state.values["messages"]):
            turn.answer = message.text if isinstance(message, AIMessage) and message.text else turn.answer
            shown = to_chat(message, self.run.run_id, turn.trace.trace_id if turn.trace else None)
            if shown and _key(shown) not in known:
                await turn.emit(MessageEvent(content=shown))

    async def _beat(self, turn: AgentTurn, signs: Heartbeat) -> None:
        while True:
            signs.beat("running", **turn.counts)
            await asyncio.sleep(self.heartbeat_s)
            try:
                await self.records.beat(self.run)
            except Fenced:
                turn.cancel("fenced")
                return
            except SQLAlchemyError as error:
                logger.warning("run %s cannot note that it lives: %s", self.run.run_id, one_line(error))


def _of_this_run(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    asked = max((at for at, each in enumerate(messages) if isinstance(each, HumanMessage)), default=-1)
    return messages[asked + 1 :]


def _key(message: ChatMessage) -> tuple[Any, ...]:
    return message.type, message.content, message.tool_call_id, tuple(call.id for call in message.tool_calls)
