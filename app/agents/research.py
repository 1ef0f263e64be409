"""An agent that looks things up in a small library on tracing."""

from langchain.tools import ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from app.agents.passages import PASSAGES, KeywordRetriever
from app.agents.react import react
from app.messages import since_last_human
from app.models.models import Models


def build(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> CompiledStateGraph:
    """Return the researcher's graph."""
    return react("research", [search, read_passage], models, checkpointer)


@tool
async def search(query: str, runtime: ToolRuntime) -> str:
    """Search the library for passages that fit the query."""
    limit = runtime.config.get("configurable", {}).get("max_passages", 2)
    found = await KeywordRetriever(passages=PASSAGES, limit=limit).ainvoke(query)
    return "\n".join(f"{passage.metadata['title']}: {passage.page_content}" for passage in found) or "Nothing."


@tool
async def read_passage(title: str, runtime: ToolRuntime) -> str:
    """Read the passage of this title. The library sleeps: it refuses what is first asked of it in a turn."""
    turn = since_last_human(runtime.state["messages"])
    if not any(isinstance(message, ToolMessage) and message.name == read_passage.name for message in turn):
        raise ToolException("The library is not ready yet, try again.")
    passage = {known.lower(): text for known, text in PASSAGES.items()}.get(title.strip().lower())
    if not passage:
        raise ToolException(f"There is no passage {title!r}; there are: {', '.join(PASSAGES)}.")
    return passage
