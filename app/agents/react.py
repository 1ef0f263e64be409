"""The loop that most agents are: a model, its tools, and back."""

from collections.abc import Sequence
from typing import Protocol

from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from app.models.models import Models
from app.runs.ledger import once


class ModelNode(Protocol):
    """A node that adds the model's message to the conversation."""

    async def __call__(self, state: MessagesState, config: RunnableConfig) -> dict[str, list[AIMessage]]:
        """The message that the model adds."""
        ...


def react(
    name: str,
    prompt: str,
    tools: Sequence[BaseTool],
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
) -> CompiledStateGraph:
    """An agent that calls its tools until the model has its answer."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", model_node(prompt, tools, models))
    graph.add_node("tools", tool_node(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer, name=name)


def model_node(prompt: str, tools: Sequence[BaseTool], models: Models) -> ModelNode:
    """A node that asks the model of the run, with these tools at hand."""

    async def model(state: MessagesState, config: RunnableConfig) -> dict[str, list[AIMessage]]:
        chosen = models.chosen(config).bind_tools(tools)
        return {"messages": [await chosen.ainvoke([SystemMessage(prompt), *state["messages"]], config)]}

    return model


def tool_node(tools: Sequence[BaseTool]) -> ToolNode:
    """A node that makes the calls the model asked for; one that fails is told to the model in words."""
    return ToolNode(tools, handle_tool_errors=in_words, awrap_tool_call=once)


def in_words(error: Exception) -> str:
    """What the model is told of a tool that failed."""
    return f"Error: {str(error) or type(error).__name__}"
