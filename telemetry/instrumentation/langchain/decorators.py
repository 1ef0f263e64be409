"""Decorators for nodes and tools: they add attributes to the existing span."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry.util.types import AttributeValue

from telemetry.span import get_span

P = ParamSpec("P")
R = TypeVar("R")
Decorator = Callable[[Callable[P, R]], Callable[P, R]]


def traced_node(name: str | None = None, **metadata: AttributeValue) -> Decorator:
    """Return a decorator that adds filterable metadata to a node's span.

    Args:
        name: the node's name; default: the function's.
        metadata: further fields to filter by.

    It creates no span: the node has one without the decorator.

    Example:
        >>> import telemetry
        >>> @telemetry.traced_node(stage=1)
        ... def plan(state: dict) -> dict:
        ...     return {"plan": "look it up"}
        >>> plan({})
        {'plan': 'look it up'}
    """
    return _set_metadata("node", name, metadata)


def traced_tool(name: str | None = None, **metadata: AttributeValue) -> Decorator:
    """Return a decorator that adds filterable metadata to a tool's span; use it below `@tool`.

    Args:
        name: the tool's name; default: the function's.
        metadata: further fields to filter by.

    It creates no span: the call has one, with input, duration, success and size, without the decorator.

    Example:
        >>> import telemetry
        >>> @telemetry.traced_tool(team="blue")
        ... def look_up(word: str) -> str:
        ...     return word.upper()
        >>> look_up("sampling")
        'SAMPLING'
    """
    return _set_metadata("tool", name, metadata)


def _set_metadata(kind: str, name: str | None, metadata: dict[str, AttributeValue]) -> Decorator:
    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        attributes = {kind: name or getattr(fn, "__name__", kind), **metadata}
        return _setting(fn, {f"langfuse.observation.metadata.{key}": value for key, value in attributes.items()})

    return decorate


def _setting(fn: Callable[P, R], attributes: dict[str, AttributeValue]) -> Callable[P, R]:
    @wraps(fn)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        get_span().set_attributes(attributes)
        return fn(*args, **kwargs)

    @wraps(fn)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
        get_span().set_attributes(attributes)
        return await cast("Any", fn)(*args, **kwargs)

    return cast("Callable[P, R]", awaited) if iscoroutinefunction(fn) else called
