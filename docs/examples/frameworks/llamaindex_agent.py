"""An agent of LlamaIndex, recorded by OpenInference's instrumentor.

pip install ./agent-telemetry llama-index-core llama-index-llms-openai openinference-instrumentation-llama-index
"""

import asyncio
import os

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

import telemetry

telemetry.configure("sums")
LlamaIndexInstrumentor().instrument()


def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


async def ask(question: str) -> str:
    """Answer a question."""
    model = OpenAI(model=os.environ.get("MODEL") or "gpt-5.5", api_base=os.environ.get("OPENAI_BASE_URL"))
    agent = FunctionAgent(name="clerk", tools=[calculator], llm=model, system_prompt="Be brief.", streaming=False)
    return str(await agent.run(user_msg=question))


if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(asyncio.run(ask("What is 12*34?")))
