"""Your own agent, without LangChain: a turn around it, and spans for its steps."""

from fastapi import FastAPI
from pydantic import BaseModel

import telemetry

app = FastAPI()
telemetry.configure("support-service")
telemetry.instrument(app)

ORDERS = {"A-1": "on its way", "A-2": "delivered"}


class Question(BaseModel):
    """The question, its user and its conversation."""

    text: str
    user_id: str
    thread_id: str


def look_up(order: str) -> str:
    """Return the state of an order."""
    with telemetry.span("look_up", kind="TOOL", **{"input.value": order}) as span:
        found = ORDERS.get(order, "unknown")
        span.set_attribute("output.value", found)
    return found


@app.post("/ask")
async def ask(question: Question) -> str:
    """Answer a question about an order."""
    thread, user = question.thread_id, question.user_id
    async with telemetry.turn("support", input=question.text, session_id=thread, user_id=user) as turn:
        turn.output = f"Order {question.text} is {look_up(question.text)}."
    return turn.output
