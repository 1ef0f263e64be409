"""Agents as their tutorials write them, in one FastAPI app; it asks each a question and prints the answers."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from typing_extensions import TypedDict

import telemetry

try:
    from langchain.agents import create_agent
except ImportError:  # before LangChain 1.0 it was LangGraph's
    from langgraph.prebuilt import create_react_agent as create_agent


class Model(GenericFakeChatModel):
    """Calls the tool, then says what it returned."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@tool
def calculator(expression: str) -> str:
    """Multiply two numbers."""
    left, right = expression.split("*")
    return str(int(left) * int(right))


def scripted() -> Model:
    call = {"name": "calculator", "args": {"expression": "12*34"}, "id": "call-1"}
    return Model(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("It is 408.")]))


def graph() -> Any:
    model = scripted()
    builder = StateGraph(MessagesState)

    def ask_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder.add_node("model", ask_model)
    builder.add_node("tools", ToolNode([calculator]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=MemorySaver(), name="sums")


class Plan(TypedDict, total=False):
    """A state without messages."""

    input: str
    response: str


def planner() -> Any:
    builder = StateGraph(Plan)
    builder.add_node("plan", lambda state: {"response": "It is 408."})
    builder.add_edge(START, "plan")
    return builder.compile(name="planner")


def functional() -> Any:
    @task
    def multiply(expression: str) -> str:
        return calculator.invoke(expression)

    @entrypoint(checkpointer=MemorySaver())
    def sums(question: str) -> str:
        return f"It is {multiply('12*34').result()}."

    return sums


def chain() -> Any:
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    return prompt | Model(messages=iter([AIMessage("It is 408.")])) | StrOutputParser()


QUESTION = "What is 12*34?"
MESSAGES = {"messages": [HumanMessage(QUESTION)]}
AGENTS: dict[str, tuple[Any, Any]] = {
    "graph": (graph(), MESSAGES),
    "create_agent": (create_agent(scripted(), [calculator], name="clerk"), MESSAGES),
    "planner": (planner(), {"input": QUESTION}),
    "functional": (functional(), QUESTION),
    "chain": (chain(), {"question": QUESTION}),
    "model": (Model(messages=iter([AIMessage("It is 408.")])), [HumanMessage(QUESTION)]),
}

app = FastAPI()
telemetry.configure("strangers-service")
telemetry.instrument(app)


@app.post("/ask/{way}")
def ask(way: str) -> Any:
    """Answer, synchronously."""
    agent, question = AGENTS[way]
    thread = f"thread-{way}"
    # A model is not told what is configurable.
    metadata = {"user_id": "ada", **({"session_id": thread} if way == "model" else {})}
    return shown(agent.invoke(question, {"configurable": {"thread_id": thread}, "metadata": metadata}))


def shown(state: Any) -> str:
    """Return the words of an answer."""
    if isinstance(state, dict):
        state = state["messages"][-1] if "messages" in state else state["response"]
    return getattr(state, "content", state)


def main() -> None:
    """Ask each agent a question, and print the answers."""
    with TestClient(app) as client:
        print(json.dumps({way: client.post(f"/ask/{way}").json() for way in AGENTS}))


if __name__ == "__main__":
    main()
