"""Which HTTP calls make no span: a model's own, unless asked for, and those to the backend."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from app.models.models import load_models
from telemetry.settings import Settings
from telemetry.testing import Receiver, Recorded, recording
from tests.openai_server import OpenAIServer, openai_server


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


async def ask(provider: OpenAIServer, *, beside: bool) -> None:
    """One node that asks the model and, at the same time, somebody else."""
    model = load_models("openai:gpt-loopback").get(None)

    async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        asked = [model.ainvoke(state["messages"], config)]
        if beside:
            asked.append(_call(provider.url))
        return {"messages": [(await asyncio.gather(*asked))[0]]}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    await graph.compile(name="graph").ainvoke({"messages": [HumanMessage("Hello")]})


async def _call(url: str) -> Any:
    async with httpx.AsyncClient(verify=False) as http:
        return await http.get(f"{url}/nothing")


def tree_of_graph(spans: Recorded) -> list[str]:
    # The provider runs in this process, and its model makes a trace of its own.
    return [line for line in spans.tree().splitlines() if line != "DemoModel LLM"]


async def test_by_default_the_model_has_no_second_span(provider: OpenAIServer) -> None:
    """The model's span says it all; what the node itself calls at the same time keeps its own."""
    with recording() as spans:
        await ask(provider, beside=True)

    assert sorted(tree_of_graph(spans)) == ["    ChatOpenAI LLM", "    GET CLIENT ERROR", "  node", "graph"]
    assert "traceparent" not in provider.received[0].headers


async def test_the_call_hangs_beside_the_model(provider: OpenAIServer) -> None:
    """Asked for, it is a span under the node, httpx2's as well as httpx's, and its headers say nothing of us."""
    with recording(Settings.model_construct(model_http=True)) as spans:
        await ask(provider, beside=False)

    assert tree_of_graph(spans) == ["graph", "  node", "    ChatOpenAI LLM", "    POST CLIENT"]
    assert not {"traceparent", "tracestate", "baggage"} & provider.received[0].headers.keys()


@pytest.mark.parametrize("model_http", [False, True])
def test_a_call_to_the_backend_is_no_span(model_http: bool) -> None:
    """What a program asks of the backend itself makes no trace, on whichever path; its other calls do."""
    with Receiver() as backend, Receiver() as another:
        keys = {"LANGFUSE_HOST": backend.endpoint, "LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}
        settings = Settings.model_validate({**keys, "TELEMETRY_MODEL_HTTP": str(model_http)})
        with recording(settings) as spans, httpx.Client() as http:
            http.get(f"{backend.endpoint}/api/public/prompts/greeting")
            http.get(f"{another.endpoint}/api/public/prompts/greeting")

    [span] = spans.settled()
    assert (span.attributes or {})["url.full"] == f"{another.endpoint}/api/public/prompts/greeting"
