"""An agent of smolagents, recorded by OpenInference's instrumentor.

pip install ./agent-telemetry "smolagents[openai]" openinference-instrumentation-smolagents
"""

import os

from openinference.instrumentation.smolagents import SmolagentsInstrumentor
from smolagents import OpenAIServerModel, ToolCallingAgent, tool

import telemetry

telemetry.configure("sums")
SmolagentsInstrumentor().instrument()


@tool
def calculator(expression: str) -> str:
    """Multiply two numbers.

    Args:
        expression: Such as 12*34.
    """
    left, right = expression.split("*")
    return str(int(left) * int(right))


model = OpenAIServerModel(os.environ.get("MODEL") or "gpt-5.5", api_base=os.environ.get("OPENAI_BASE_URL"))
agent = ToolCallingAgent([calculator], model, name="clerk", description="Multiplies.", verbosity_level=0)

if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(agent.run("What is 12*34?"))
