"""Read the scope of a turn from the config of an outermost run: session, user, agent, tags and metadata."""

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from opentelemetry.sdk.trace import Span

from telemetry.context import Scope, scope_attributes
from telemetry.plain_data import is_a

# Keys for tracing take precedence over keys with another purpose, such as a checkpointer's thread.
_SESSION = ("langfuse_session_id", "session_id", "conversation_id", "thread_id")
_USER = ("langfuse_user_id", "user_id")
_AGENT = ("agent_name", "lc_agent_name")
_TAGS = "langfuse_tags"
_FILED_ELSEWHERE = {*_SESSION, *_USER, *_AGENT, _TAGS}
# Keys that LangChain and LangGraph add to a config.
_INTERNAL = ("ls_", "lc_", "langgraph_", "langfuse_", "checkpoint", "__", "run_id", "thread_")
_INTERNAL_TAGS = ("seq:step", "map:key", "graph:step", "langsmith:", "branch:")
# Class names that do not name an agent.
_GENERIC = re.compile(r"LangGraph|Runnable[A-Z]\w*|Pregel\w*|(?:Base)?Chat[A-Z]\w*|\w*PromptTemplate|\w*(?:LLM|Model)")
_AGENT_PARAMETER = re.compile(r"\{\w*(?:agent|assistant|graph|bot)\w*\}")

_configurable: ContextVar[Mapping[str, Any] | None] = ContextVar("telemetry-configurable", default=None)


def note_configurable(values: Mapping[str, Any] | None) -> None:
    """Store a config's `configurable` for the run that starts next in this context."""
    if values or _configurable.get() is not None:
        _configurable.set(values)


def scope_of(name: str, tags: Sequence[str] | None, metadata: Mapping[str, Any], root: Span | None) -> Scope:
    """Return the scope from an outermost run's config; values of a surrounding scope take precedence."""
    around = scope_attributes()
    configurable = _configurable.get() or {}
    agent = _first(_AGENT, metadata, configurable) or agent_name(name) or _agent_in_path(root)
    own = metadata.get(_TAGS)
    listed = [*(tags or ()), *(own if isinstance(own, (list, tuple)) else ())]
    return Scope(
        session_id=None if "session.id" in around else _first(_SESSION, metadata, configurable),
        user_id=None if "user.id" in around else _first(_USER, metadata, configurable),
        agent=None if "langfuse.trace.name" in around else agent,
        tags=tuple(tag for tag in listed if is_a(tag, str) and not tag.startswith(_INTERNAL_TAGS)),
        metadata={key: value for key, value in metadata.items() if _is_filterable(key)},
    )


def agent_name(name: str) -> str | None:
    """Return a run's name if it may be that of an agent, and not of one of LangChain's classes."""
    return None if _GENERIC.fullmatch(name) else name


def _is_filterable(key: Any) -> bool:
    return type(key) is str and key not in _FILED_ELSEWHERE and not key.startswith(_INTERNAL)


def _first(names: Sequence[str], *sources: Mapping[str, Any]) -> str | None:
    found = (source.get(name) for name in names for source in sources)
    return next((str(value) for value in found if type(value) in (str, int, UUID) and value), None)


def _agent_in_path(root: Span | None) -> str | None:
    """Return the value of the request path's parameter that names an agent, as in `/{agent_id}/stream`."""
    attributes = (root.attributes if root else None) or {}
    route, path = str(attributes.get("http.route", "")), str(attributes.get("url.path", ""))
    pairs = list(zip(route.split("/"), path.split("/"), strict=False)) if route.count("/") == path.count("/") else []
    return next((value for part, value in pairs if _AGENT_PARAMETER.fullmatch(part) and value), None)
