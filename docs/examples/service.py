"""A LangGraph agent behind FastAPI, traced in three lines: the import, `configure` and `instrument`.

With OPENAI_API_KEY and OTEL_EXPORTER_OTLP_ENDPOINT (or LANGFUSE_*) in the environment:

    uvicorn service:app
"""

import operator
import os
import re

from fastapi import FastAPI
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel

import telemetry

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class Question(BaseModel):
    """A question, and its conversation."""

    message: str
    thread_id: str
    user_id: str


@tool
def calculator(expression: str) -> str:
    """Add, subtract or multiply two whole numbers, such as 12*34."""
    found = re.fullmatch(r"\s*(\d+)\s*([-+*])\s*(\d+)\s*", expression)
    return str(OPERATORS[found[2]](int(found[1]), int(found[3]))) if found else "Write it as 12*34."


async def model(state: MessagesState) -> dict:
    """Ask the model."""
    chat = ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5").bind_tools([calculator])
    return {"messages": [await chat.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("model", model)
graph.add_node("tools", ToolNode([calculator]))
graph.add_edge(START, "model")
graph.add_conditional_edges("model", tools_condition)
graph.add_edge("tools", "model")
chatbot = graph.compile(InMemorySaver(), name="chatbot")

app = FastAPI()
telemetry.configure("chatbot-service")
telemetry.instrument(app)


@app.post("/chat")
async def chat(question: Question) -> str:
    """Answer one message of a conversation; its thread becomes the session, its user the user."""
    config = RunnableConfig(configurable={"thread_id": question.thread_id}, metadata={"user_id": question.user_id})
    state = await chatbot.ainvoke({"messages": [HumanMessage(question.message)]}, config)
    return state["messages"][-1].text
