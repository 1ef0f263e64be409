"""An agent that books a table after asking the person."""

from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from app.agents.react import react
from app.models.models import Models
from app.schema import Approve, Edit, Reject, Respond, decision_of


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """Return the booking agent's graph."""
    return react("interrupt", [book_table], models, checkpointer)


@tool
async def book_table(people: int = 2, time: str = "19:00") -> str:
    """Book a table in the restaurant for so many people at this time, after asking the person."""
    args = {"people": people, "time": time}
    question = {
        "question": f"Shall I book {_booking(**args)}?",
        "options": ["yes", "no"],
        "action": {"name": "book_table", "args": args},
        "allowed_decisions": ["approve", "edit", "reject"],
    }
    match decision_of(interrupt(question)):
        case Approve():
            return f"Booked {_booking(**args)}."
        case Edit(edited_action=edited):
            return f"Booked {_booking(**args | edited.args)}."
        case Reject(message=answer) | Respond(message=answer):
            return f"Did not book {_booking(**args)}: the answer was {answer or 'no'!r}."


def _booking(people: int, time: str, **_: object) -> str:
    return f"a table for {people} at {time}"
