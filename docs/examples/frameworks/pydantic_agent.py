"""An agent of pydantic-ai, which makes its spans itself.

pip install ./agent-telemetry "pydantic-ai-slim[openai]"
"""

import os

from pydantic_ai import Agent

import telemetry

telemetry.configure("sums")
Agent.instrument_all()

model = os.environ.get("MODEL") or "gpt-5.5"
agent = Agent(f"openai-chat:{model}", name="clerk", instructions="Be brief.")


@agent.tool_plain
def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(agent.run_sync("What is 12*34?").output)
