"""Decorators for nodes and tools: they add to the span that is there already, and make none."""

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry.util.types import AttributeValue

from telemetry.span import get_span

P = ParamSpec("P")
R = TypeVar("R")
Decorator = Callable[[Callable[P, R]], Callable[P, R]]


def traced_node(name: str | None = None, **about: AttributeValue) -> Decorator:
    """Return a decorator for a node, whose span can then be filtered by the node's name and by what is said of it.

    The span itself is there without the decorator.
    """
    return _marking("node", name, about)


def traced_tool(name: str | None = None, **about: AttributeValue) -> Decorator:
    """Return a decorator for a tool's function, below `@tool`: its span says the tool's name and what is said of it.

    The span, with input, duration, success and size, is there without the decorator.
    """
    return _marking("tool", name, about)


def _marking(kind: str, name: str | None, about: dict[str, AttributeValue]) -> Decorator:
    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        said = {kind: name or getattr(fn, "__name__", kind), **about}
        return _before(fn, {f"langfuse.observation.metadata.{key}": value for key, value in said.items()})

    return decorate


def _before(fn: Callable[P, R], said: dict[str, AttributeValue]) -> Callable[P, R]:
    @wraps(fn)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        get_span().set_attributes(said)
        return fn(*args, **kwargs)

    @wraps(fn)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
        get_span().set_attributes(said)
        return await cast("Any", fn)(*args, **kwargs)

    return cast("Callable[P, R]", awaited) if iscoroutinefunction(fn) else called
