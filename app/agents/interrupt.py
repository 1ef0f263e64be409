"""An agent that books a table, and asks the person before it does."""

from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from app.agents.react import react
from app.models.models import Models

PROMPT = "You book tables with your tool, which asks the person to agree. Say briefly what came of it."
CONSENT = frozenset({"yes", "y", "ok", "okay", "sure", "please"})


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The booking agent's graph."""
    return react("interrupt", PROMPT, [book_table], models, checkpointer)


@tool
async def book_table(people: int = 2, time: str = "19:00") -> str:
    """Book a table in the restaurant for so many people at this time, after asking the person."""
    booking = f"a table for {people} at {time}"
    answer = interrupt({"question": f"Shall I book {booking}?", "options": ["yes", "no"]})
    return f"Booked {booking}." if agrees(answer) else f"Did not book {booking}: the answer was {answer!r}."


def agrees(answer: object) -> bool:
    """Whether the answer's first word is a yes."""
    words = str(answer).lower().replace(",", " ").strip(" .!").split()
    return bool(words) and words[0] in CONSENT
