"""The loop of most agents: a model calls tools until it has its answer."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from langchain_core.messages import AIMessage, AnyMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

import telemetry
from app.messages import answer_invalid_calls, with_valid_calls
from app.models.models import Models
from app.runs.tool_call_log import idempotent

_PROMPTS = Path(__file__).parent / "prompts"

Prepare = Callable[[Sequence[AnyMessage]], Awaitable[list[AnyMessage]]]


class ModelNode(Protocol):
    """A node that adds the model's message to the conversation."""

    async def __call__(self, state: MessagesState, config: RunnableConfig) -> dict[str, list[AnyMessage]]:
        """Return the message of the model, with the errors of its invalid tool calls."""
        ...


def react(
    name: str,
    tools: Sequence[BaseTool],
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
    prepare: Prepare | None = None,
) -> CompiledStateGraph:
    """Return an agent that calls its tools until the model has its answer; `prepare` changes what the model is sent."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", model_node(name, tools, models, prepare))
    graph.add_node("tools", tool_node(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition, ["model", "tools", END])
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer, name=name)


def model_node(name: str, tools: Sequence[BaseTool], models: Models, prepare: Prepare | None = None) -> ModelNode:
    """Return a node that calls the run's model with these tools and the agent's prompt.

    The prompt is Langfuse's of this name, or the file in `prompts/`; without either there is none.
    """
    path = _PROMPTS / f"{name}.txt"
    ours = path.read_text(encoding="utf-8").strip() if path.exists() else ""

    async def model(state: MessagesState, config: RunnableConfig) -> dict[str, list[AnyMessage]]:
        llm = models.chosen_with_tools(config, tools)
        history: list[AnyMessage] = [with_valid_calls(message) for message in state["messages"]]
        if prepare:
            history = await prepare(history)
        prompt = telemetry.prompt(name, fallback=ours)
        linked = merge_configs(config, {"metadata": prompt.metadata})
        message = await llm.ainvoke([SystemMessage(prompt.text), *history], linked)
        return {"messages": [message, *answer_invalid_calls(message)]}

    return model


def tools_condition(state: MessagesState) -> str:
    """Route to the tools that the model called, back to it if every call was invalid, or to the end without calls.

    It has the name of LangGraph's own condition, because spans are named after it; that one ignores invalid calls.
    """
    message = next(message for message in reversed(state["messages"]) if isinstance(message, AIMessage))
    if message.tool_calls:
        return "tools"
    return "model" if message.invalid_tool_calls else END


def tool_node(tools: Sequence[BaseTool]) -> ToolNode:
    """Return a node that executes the model's tool calls; the error of a failed call is returned to the model."""
    return ToolNode(tools, handle_tool_errors=error_text, awrap_tool_call=idempotent)


def error_text(error: Exception) -> str:
    """Return the text with which a failed tool is reported to the model."""
    return f"Error: {str(error) or type(error).__name__}"
