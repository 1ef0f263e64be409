"""An agent in a Celery worker: each task is a trace of its own.

    pip install ./agent-telemetry "celery[redis]" langchain langchain-openai
    celery --app celery_worker worker

With opentelemetry-instrumentation-celery beside it, a task is a part of the request that sends it: call
`CeleryInstrumentor().instrument()` after `telemetry.configure`, in the worker and in the program that sends.
"""

import os

from celery import Celery
from celery.signals import worker_process_shutdown
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import telemetry

app = Celery("clerk", broker=os.environ.get("BROKER_URL") or "redis://127.0.0.1", backend=os.environ.get("BROKER_URL"))
telemetry.configure("clerk-worker")


@worker_process_shutdown.connect
def end(**_: object) -> None:
    """Send what is left: a process of the pool ends without Python's own exit."""
    telemetry.shutdown()


@app.task
def answer(message: str, thread_id: str, user_id: str) -> str:
    """Answer one message of a conversation."""
    agent = create_agent(ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5"), name="clerk")
    config = RunnableConfig(configurable={"thread_id": thread_id}, metadata={"user_id": user_id})
    state = agent.invoke({"messages": [{"role": "user", "content": message}]}, config)
    return state["messages"][-1].text
