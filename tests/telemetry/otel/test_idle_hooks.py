"""Hooks of LangChain's middleware, which run around each call of a model."""

from pathlib import Path
from typing import Any

import pytest

from telemetry.testing import Receiver
from tests.processes import UNSET
from tests.telemetry.test_provider import run

AGENT = """
    import telemetry
    from langchain.agents import create_agent
    from langchain.agents.middleware import AgentMiddleware
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    class Looks(AgentMiddleware):
        def before_model(self, state, runtime):
            return None

        def after_model(self, state, runtime):
            telemetry.event("looked")

        def after_agent(self, state, runtime):
            return {"messages": [AIMessage("Bye.")]}

    telemetry.configure("clerk")
    model = GenericFakeChatModel(messages=iter([AIMessage("Hi.")]))
    agent = create_agent(model, [], middleware=[Looks()], name="clerk")
    agent.invoke({"messages": [("user", "Hello")]})
"""


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
@pytest.mark.parametrize("shown", [{}, {"TELEMETRY_MIDDLEWARE_HOOKS": "true"}])
def test_a_hook_that_changes_nothing(recorder: str, shown: dict[str, Any], tmp_path: Path) -> None:
    """It makes no span unless a setting shows it, or something below it needs it; what changes the state is shown."""
    with Receiver() as receiver:
        env = {**UNSET, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "TELEMETRY_LANGCHAIN": recorder, **shown}
        run(AGENT, tmp_path, **env, PYTHONWARNINGS="ignore")
        names = {span.name for span in receiver.spans}

    assert {"Looks.after_model", "looked", "Looks.after_agent"} <= names
    assert ("Looks.before_model" in names) is bool(shown)
