"""An agent that looks things up in a small library on tracing."""

from langchain.tools import ToolRuntime
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.passages import PASSAGES, KeywordRetriever
from app.agents.react import react
from app.models.models import Models

PROMPT = (
    "You answer from a small library on tracing. Search for several things at once where that helps, "
    "read a passage when you need its exact words, and try again when the library asks you to."
)


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """The researcher's graph."""
    return react("research", PROMPT, [search, read_passage], models, checkpointer)


@tool
async def search(query: str, runtime: ToolRuntime) -> str:
    """Search the library for passages that fit the query."""
    limit = runtime.config.get("configurable", {}).get("max_passages", 2)
    found = await KeywordRetriever(passages=PASSAGES, limit=limit).ainvoke(query)
    return "\n".join(f"{passage.metadata['title']}: {passage.page_content}" for passage in found) or "Nothing."


@tool
async def read_passage(title: str, runtime: ToolRuntime) -> str:
    """Read the passage of this title. The library sleeps: it refuses what is first asked of it in a turn."""
    if not asked_before(runtime.state["messages"]):
        raise ToolException("The library is waking up, try again.")
    passage = {known.lower(): text for known, text in PASSAGES.items()}.get(title.strip().lower())
    if not passage:
        raise ToolException(f"There is no passage {title!r}; there are: {', '.join(PASSAGES)}.")
    return passage


def asked_before(messages: list[AnyMessage]) -> bool:
    """Whether a passage was asked for since the person last spoke."""
    last = max(number for number, message in enumerate(messages) if isinstance(message, HumanMessage))
    return any(isinstance(m, ToolMessage) and m.name == read_passage.name for m in messages[last:])
