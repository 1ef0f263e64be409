"""An agent in a job of RQ: each job is a trace of its own.

    pip install ./agent-telemetry rq langchain langchain-openai
    python rq_worker.py

and in the program that asks: `Queue("clerk", connection=Redis()).enqueue("rq_worker.answer", message, thread, user)`.
"""

import os

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from redis import Redis
from rq import Worker

import telemetry

telemetry.configure("clerk-worker")


def answer(message: str, thread_id: str, user_id: str) -> str:
    """Answer one message of a conversation."""
    agent = create_agent(ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5"), name="clerk")
    config = RunnableConfig(configurable={"thread_id": thread_id}, metadata={"user_id": user_id})
    try:
        state = agent.invoke({"messages": [{"role": "user", "content": message}]}, config)
    finally:
        # RQ runs each job in a process that ends without Python's own exit.
        telemetry.flush(seconds=2)
    return state["messages"][-1].text


if __name__ == "__main__":
    # RQ's own command would import all of this again for each job.
    Worker(["clerk"], connection=Redis.from_url(os.environ.get("BROKER_URL") or "redis://127.0.0.1")).work()
