"""A module of DSPy, recorded by OpenInference's instrumentor, which counts no tokens.

pip install ./agent-telemetry dspy openinference-instrumentation-dspy
"""

import os

import dspy
from openinference.instrumentation.dspy import DSPyInstrumentor

import telemetry

telemetry.configure("sums")
DSPyInstrumentor().instrument()


def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


model = dspy.LM(f"openai/{os.environ.get('MODEL') or 'gpt-4o'}", api_base=os.environ.get("OPENAI_BASE_URL"))
dspy.configure(lm=model)
clerk = dspy.ReAct("question -> answer", tools=[calculator])

if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(clerk(question="What is 12*34?").answer)
