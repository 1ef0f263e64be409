"""OpenAI's Agents SDK, recorded by OpenInference's instrumentor.

pip install ./agent-telemetry openai-agents openinference-instrumentation-openai-agents
"""

import os

from agents import Agent, Runner, function_tool
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

import telemetry

telemetry.configure("sums")
OpenAIAgentsInstrumentor().instrument()


@function_tool
def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


agent = Agent(name="clerk", instructions="Be brief.", model=os.environ.get("MODEL") or "gpt-5.5", tools=[calculator])

if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(Runner.run_sync(agent, "What is 12*34?").final_output)
