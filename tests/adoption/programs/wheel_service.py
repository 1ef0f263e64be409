"""A service of someone who has installed the wheel: three of its lines trace it."""

from itertools import repeat

from fastapi import FastAPI
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage

import telemetry

app = FastAPI()
telemetry.configure("my-service")
telemetry.instrument(app)


@app.get("/chat")
async def chat(message: str, thread_id: str) -> str:
    """Answer a message."""
    agent = create_agent(GenericFakeChatModel(messages=repeat(AIMessage("Hello, Ada."))), name="clerk")
    state = await agent.ainvoke({"messages": [HumanMessage(message)]}, {"configurable": {"thread_id": thread_id}})
    return state["messages"][-1].text
