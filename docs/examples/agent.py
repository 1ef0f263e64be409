"""LangChain's `create_agent` behind FastAPI, traced in three lines: the import, `configure` and `instrument`.

With OPENAI_API_KEY and OTEL_EXPORTER_OTLP_ENDPOINT (or LANGFUSE_*) in the environment:

    uvicorn agent:app
"""

import os

from fastapi import FastAPI
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

import telemetry


class Question(BaseModel):
    """A question, and its conversation."""

    message: str
    thread_id: str
    user_id: str


@tool
def calculator(expression: str) -> str:
    """Multiply two whole numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


model = ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5")
agent = create_agent(model, [calculator], name="clerk", checkpointer=InMemorySaver())

app = FastAPI()
telemetry.configure("clerk-service")
telemetry.instrument(app)


@app.post("/chat")
async def chat(question: Question) -> str:
    """Answer one message of a conversation; its thread becomes the session, its user the user."""
    config = RunnableConfig(
        configurable={"thread_id": question.thread_id}, metadata={"user_id": question.user_id}, tags=["beta"]
    )
    state = await agent.ainvoke({"messages": [{"role": "user", "content": question.message}]}, config)
    return state["messages"][-1].text
