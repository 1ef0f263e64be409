"""A program that ends: its agent's run is the trace, and what has been recorded is sent when Python exits.

python script.py "What is 12*34?"
"""

import os
import sys

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import telemetry

telemetry.configure("clerk")


def main(question: str) -> None:
    """Print the answer."""
    agent = create_agent(ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5"), name="clerk")
    config = RunnableConfig(metadata={"session_id": "nightly", "user_id": "ada"})
    state = agent.invoke({"messages": [{"role": "user", "content": question}]}, config)
    print(state["messages"][-1].text)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "What is 12*34?")
