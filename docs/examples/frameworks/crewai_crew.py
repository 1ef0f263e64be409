"""A crew of CrewAI, recorded by OpenInference's instrumentors of CrewAI and of the client that it uses.

pip install ./agent-telemetry crewai openinference-instrumentation-crewai openinference-instrumentation-openai
"""

import os

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from openinference.instrumentation.crewai import CrewAIInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor

import telemetry

telemetry.configure("sums")
CrewAIInstrumentor().instrument()
OpenAIInstrumentor().instrument()


@tool("calculator")
def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


model = LLM(f"openai/{os.environ.get('MODEL') or 'gpt-4o'}", base_url=os.environ.get("OPENAI_BASE_URL"))
clerk = Agent(role="clerk", goal="Multiply.", backstory="Brief.", llm=model, tools=[calculator])
task = Task(description="{question}", expected_output="A number.", agent=clerk)
crew = Crew(name="sums", agents=[clerk], tasks=[task])

if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(crew.kickoff({"question": "What is 12*34?"}))
