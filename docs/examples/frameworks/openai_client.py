"""The OpenAI client, chat completions and Responses, recorded by OpenInference's instrumentor.

pip install ./agent-telemetry openai openinference-instrumentation-openai
"""

import json
import os

from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor

import telemetry

telemetry.configure("sums")
OpenAIInstrumentor().instrument()

MODEL = os.environ.get("MODEL") or "gpt-5.5"
PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
FUNCTION = {"name": "calculator", "description": "Multiply two numbers, such as 12*34.", "parameters": PARAMETERS}
client = OpenAI()


def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    with telemetry.span("calculator", kind="TOOL", **{"input.value": json.dumps({"expression": expression})}) as span:
        left, right = expression.split("*")
        result = str(int(left) * int(right))
        span.set_attribute("output.value", result)
    return result


def ask(question: str) -> str:
    """Answer by chat completions, the first of them streamed."""
    messages: list = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    tools: list = [{"type": "function", "function": FUNCTION}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools).choices[0].message
    messages.append(answer.model_dump(exclude_none=True))
    for call in answer.tool_calls or ():
        result = calculator(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    options = {"include_usage": True}
    chunks = client.chat.completions.create(model=MODEL, messages=messages, stream=True, stream_options=options)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def ask_responses(question: str) -> str:
    """Answer by the Responses API."""
    return client.responses.create(model=MODEL, instructions="Be brief.", input=question).output_text


if __name__ == "__main__":
    for thread, answer_to in (("chat", ask), ("responses", ask_responses)):
        with telemetry.turn("sums", input="What is 12*34?", session_id=thread, user_id="ada") as turn:
            turn.output = answer_to("What is 12*34?")
        print(turn.output)
