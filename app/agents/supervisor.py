"""An agent that hands each task to the worker who knows how, and answers with what they found."""

from typing import Annotated, Protocol, TypedDict

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import tools_condition
from langgraph.types import Command, Send

from app.agents.react import model_node, react, tool_node
from app.agents.tools import calculator, current_time
from app.models.models import Models

PROMPT = "You lead two workers. Hand over every calculation and every question for the time; answer briefly."
MATH = "You calculate with your tool. Answer with the result alone."
CLOCK = "You tell the time with your tool. Answer with the time alone."


class HandOff(TypedDict):
    """A task for a worker, and the call that it answers."""

    task: str
    call_id: str


class WorkNode(Protocol):
    """A node that answers a call with a worker's result."""

    async def __call__(self, state: HandOff) -> dict[str, list[ToolMessage]]:
        """The result that the worker adds."""
        ...


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The supervisor's graph, with a subgraph for each worker."""
    workers = [react("math", MATH, [calculator], models), react("clock", CLOCK, [current_time], models)]
    hand_offs = [transfer_to(worker.name) for worker in workers]
    graph = StateGraph(MessagesState)
    graph.add_node("model", model_node(PROMPT, hand_offs, models))
    graph.add_node("tools", tool_node(hand_offs))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_conditional_edges("tools", back_if_answered, ["model", END])
    for worker in workers:
        graph.add_node(worker.name, work_of(worker))
        graph.add_edge(worker.name, "model")
    return graph.compile(checkpointer, name="supervisor")


def transfer_to(worker: str) -> BaseTool:
    """The tool that sends a task to this worker; the worker's answer is the call's result."""

    @tool(f"transfer_to_{worker}", description=f"Hand one task over to the {worker} worker.")
    def transfer(task: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command:
        return Command(goto=Send(worker, HandOff(task=task, call_id=tool_call_id)))

    return transfer


def work_of(worker: CompiledStateGraph) -> WorkNode:
    """A node that lets the worker do one task."""

    name = f"transfer_to_{worker.name}"

    async def work(state: HandOff) -> dict[str, list[ToolMessage]]:
        done = await worker.ainvoke({"messages": [HumanMessage(state["task"])]})
        return {"messages": [ToolMessage(done["messages"][-1].text, name=name, tool_call_id=state["call_id"])]}

    return work


def back_if_answered(state: MessagesState) -> str:
    """Back to the model where every call failed to hand over; else the workers' answers lead there."""
    return "model" if isinstance(state["messages"][-1], ToolMessage) else END
