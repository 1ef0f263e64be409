"""An agent that delegates each task to a worker, and answers with the workers' results."""

from typing import Annotated, Protocol, TypedDict

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send

from app.agents.react import model_node, react, tool_node, tools_condition
from app.agents.tools import calculator, current_time
from app.models.models import Models


class HandOff(TypedDict):
    """A task for a worker, and the call that it answers."""

    task: str
    call_id: str


class WorkNode(Protocol):
    """A node that answers a call with a worker's result."""

    async def __call__(self, state: HandOff) -> dict[str, list[ToolMessage]]:
        """Return the result that the worker adds."""
        ...


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """Return the supervisor's graph, with a subgraph for each worker."""
    workers = [react("math", [calculator], models), react("clock", [current_time], models)]
    hand_offs = [transfer_to(worker.name) for worker in workers]
    graph = StateGraph(MessagesState)
    graph.add_node("model", model_node("supervisor", hand_offs, models))
    graph.add_node("tools", tool_node(hand_offs))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition, ["model", "tools", END])
    graph.add_conditional_edges("tools", back_if_answered, ["model", END])
    for worker in workers:
        graph.add_node(worker.name, worker_node(worker))
        graph.add_edge(worker.name, "model")
    return graph.compile(checkpointer, name="supervisor")


def transfer_to(worker: str) -> BaseTool:
    """Return the tool that sends a task to this worker; the worker's answer is the call's result."""

    @tool(f"transfer_to_{worker}", description=f"Hand one task over to the {worker} worker.")
    def transfer(task: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command:
        return Command(goto=Send(worker, HandOff(task=task, call_id=tool_call_id)))

    return transfer


def worker_node(worker: CompiledStateGraph) -> WorkNode:
    """Return a node that lets the worker do one task."""
    name = f"transfer_to_{worker.name}"

    async def work(state: HandOff) -> dict[str, list[ToolMessage]]:
        state_after = await worker.ainvoke({"messages": [HumanMessage(state["task"])]})
        return {"messages": [ToolMessage(state_after["messages"][-1].text, name=name, tool_call_id=state["call_id"])]}

    return work


def back_if_answered(state: MessagesState) -> str:
    """Return to the model if every hand-over failed; otherwise the workers' results lead there."""
    return "model" if isinstance(state["messages"][-1], ToolMessage) else END
