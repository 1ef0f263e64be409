"""The Anthropic client, also streamed, recorded by OpenInference's instrumentor.

pip install ./agent-telemetry anthropic openinference-instrumentation-anthropic
"""

import json
import os
from typing import Any

from anthropic import Anthropic
from openinference.instrumentation.anthropic import AnthropicInstrumentor

import telemetry

telemetry.configure("sums")
AnthropicInstrumentor().instrument()

PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
OPTIONS: dict[str, Any] = {
    "model": os.environ.get("MODEL") or "claude-sonnet-4-6",
    "max_tokens": 1024,
    "system": "Be brief.",
    "tools": [{"name": "calculator", "description": "Multiply, such as 12*34.", "input_schema": PARAMETERS}],
}
client = Anthropic()


def calculator(expression: str) -> str:
    """Multiply two numbers."""
    with telemetry.span("calculator", kind="TOOL", **{"input.value": json.dumps({"expression": expression})}) as span:
        left, right = expression.split("*")
        result = str(int(left) * int(right))
        span.set_attribute("output.value", result)
    return result


def ask(question: str) -> str:
    """Answer; what the model says after its tool is streamed."""
    messages: list[Any] = [{"role": "user", "content": question}]
    answer = client.messages.create(messages=messages, **OPTIONS)
    messages.append({"role": "assistant", "content": answer.model_dump()["content"]})
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": calculator(**block.input)}
        for block in answer.content
        if block.type == "tool_use"
    ]
    messages.append({"role": "user", "content": results})
    with client.messages.stream(messages=messages, **OPTIONS) as stream:
        return "".join(stream.text_stream)


if __name__ == "__main__":
    with telemetry.turn("clerk", input="What is 12*34?", session_id="thread-7", user_id="ada") as turn:
        turn.output = ask("What is 12*34?")
    print(turn.output)
