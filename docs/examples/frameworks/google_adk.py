"""An agent of Google's ADK, which makes its spans itself.

pip install ./agent-telemetry google-adk

What was said is on its spans with OTEL_SEMCONV_STABILITY_OPT_IN=http,gen_ai_latest_experimental and
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY in the environment.
"""

import asyncio
import os

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types

import telemetry

telemetry.configure("sums")


def calculator(expression: str) -> str:
    """Multiply two numbers, such as 12*34."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


model = os.environ.get("MODEL") or "gemini-2.5-flash"
agent = LlmAgent(name="clerk", model=model, instruction="Be brief.", tools=[calculator])


async def ask(question: str) -> str:
    """Answer a question."""
    runner = InMemoryRunner(agent, app_name="sums")
    session = await runner.session_service.create_session(app_name="sums", user_id="ada", session_id="thread-7")
    said = types.Content(role="user", parts=[types.Part(text=question)])
    answer = ""
    async for event in runner.run_async(user_id="ada", session_id=session.id, new_message=said):
        if event.is_final_response() and event.content and event.content.parts:
            answer = event.content.parts[0].text or ""
    return answer


if __name__ == "__main__":
    with telemetry.scope(session_id="thread-7", user_id="ada"):
        print(asyncio.run(ask("What is 12*34?")))
