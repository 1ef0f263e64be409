"""What a trace shows of a model that another one stood in for."""

import asyncio
from textwrap import dedent

import pytest
from langchain_core.runnables import RunnableConfig

from app.agents import load
from app.models.models import load_models
from telemetry.testing import Recorded
from tests.app.scripted_provider import scripted_provider

pytestmark = pytest.mark.usefixtures("langchain")


def test_both_models_are_in_the_trace(spans: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that failed with its error, and beside it the one that answered."""
    with scripted_provider(monkeypatch) as provider:
        provider.script = [401]
        agent = load("chatbot", load_models("openai:gpt-scripted", fallbacks=["demo"]))
        asyncio.run(agent.ainvoke({"messages": "Hello"}, RunnableConfig()))

    expected = """
        chatbot
          model
            RunnableWithFallbacks
              ChatOpenAI LLM ERROR
              DemoModel LLM
            tools_condition
    """
    assert spans.tree() == dedent(expected).strip()
