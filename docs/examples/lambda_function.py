"""An agent in a function of AWS Lambda, which stops its process as soon as the handler has returned.

The spool is in /tmp, the one folder that a function may write to: TELEMETRY_SPOOL_DIR=/tmp/spool
"""

import os
from typing import Any

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import telemetry

telemetry.configure("clerk-function")
agent = create_agent(ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5"), name="clerk")


def handler(event: dict[str, Any], _: object) -> dict[str, str]:
    """Answer the message of an event."""
    config = RunnableConfig(configurable={"thread_id": event["thread_id"]}, metadata={"user_id": event["user_id"]})
    try:
        state = agent.invoke({"messages": [{"role": "user", "content": event["message"]}]}, config)
    finally:
        telemetry.flush(seconds=2)
    return {"answer": state["messages"][-1].text}
