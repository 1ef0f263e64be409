"""The loop that most agents are: a model, its tools, and back."""

from collections.abc import Sequence

from langchain_core.messages import SystemMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from app.models import Models


def react(
    name: str,
    prompt: str,
    tools: Sequence[BaseTool],
    models: Models,
    checkpointer: BaseCheckpointSaver | None = None,
) -> CompiledStateGraph:
    """An agent that calls its tools until the model has its answer."""

    async def model(state: MessagesState, config: RunnableConfig) -> dict:
        chosen = models.chosen(config).bind_tools(tools)
        return {"messages": [await chosen.ainvoke([SystemMessage(prompt), *state["messages"]], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node(model)
    graph.add_node("tools", ToolNode(tools, handle_tool_errors=in_words))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer, name=name)


def in_words(error: Exception) -> str:
    """What the model is told of a tool that failed."""
    return f"Error: {str(error) or type(error).__name__}"
