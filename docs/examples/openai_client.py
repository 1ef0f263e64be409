"""FastAPI and an OpenAI-compatible client, without LangChain and without an instrumentor.

`ask` says on a span of kind LLM, in OpenInference's words, what the model was asked, what it said and what it cost.
`frameworks/openai_client.py` leaves that to OpenInference's instrumentor.
"""

import json
import os

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

import telemetry

MODEL = os.environ.get("MODEL") or "gpt-5.5"

app = FastAPI()
telemetry.configure("summary-service")
telemetry.instrument(app)
client = AsyncOpenAI()


class Text(BaseModel):
    """The text to summarise, and its user."""

    text: str
    user_id: str


async def ask(messages: list) -> str:
    """Call the model in a span with its input, output and usage."""
    with telemetry.span(MODEL, kind="LLM") as span:
        span.set_attributes({"llm.model_name": MODEL, "input.value": json.dumps({"messages": messages})})
        completion = await client.chat.completions.create(model=MODEL, messages=messages)
        choice = completion.choices[0]
        span.set_attribute("output.value", choice.message.model_dump_json(exclude_none=True))
        span.set_attribute("llm.finish_reason", choice.finish_reason)
        if completion.usage:
            span.set_attribute("llm.token_count.prompt", completion.usage.prompt_tokens)
            span.set_attribute("llm.token_count.completion", completion.usage.completion_tokens)
    return choice.message.content or ""


@app.post("/summary")
async def summary(asked: Text) -> str:
    """Summarise a text."""
    with telemetry.scope(user_id=asked.user_id), telemetry.span("summary"):
        return await ask([{"role": "user", "content": f"Sum this up in one sentence: {asked.text}"}])
