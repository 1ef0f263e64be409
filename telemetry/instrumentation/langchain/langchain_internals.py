"""Every private name of LangChain and LangGraph that is used here, and what is lost without it.

Both copy the context for each run, and enter the run's config in the copy with their own `_set_config_context`. Only
there can the run's span be made current. Without it, spans and HTTP calls inside a node or a tool are below the request
instead, and the contract test fails with this sentence.

A handler that runs inline is called in the order of events, in the context of the run. `wrap_llm_start` makes up for
what LangChain does wrong where there is one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
)
from langchain_core.callbacks.manager import ahandle_event
from langchain_core.runnables import RunnableConfig

from telemetry.internal_errors import handle_internal_errors

OnConfigure = Callable[[Mapping[str, Any] | None], None]
OnManager = Callable[[BaseCallbackManager], None]

ENTRANCES = ("langchain_core.runnables.config", "langgraph._internal._runnable")
_ENTER = "_set_config_context"
_MANAGERS: tuple[Any, ...] = (CallbackManager, AsyncCallbackManager)
CONFIGURABLE = "langsmith_inheritable_metadata"


class InlineHandler:
    """Marks our handlers, which all run inline."""

    __slots__ = ()
    run_inline = True


def wrap_entrances(on_enter: Callable[[RunnableConfig], None]) -> None:
    """Call `on_enter` with the config of each run, inside the run's copy of the context."""
    for module in _modules():
        with handle_internal_errors(f"find where runs begin in {module.__name__}"):
            setattr(module, _ENTER, _wrapped(getattr(module, _ENTER), on_enter))


def unwrap_entrances() -> None:
    """Undo `wrap_entrances`."""
    for module in _modules():
        enter = getattr(module, _ENTER, None)
        if original := getattr(enter, "__wrapped__", None):
            setattr(module, _ENTER, original)


def wrap_configure(on_configure: OnConfigure, on_manager: OnManager) -> None:
    """Call these wherever a run's callbacks are set up: with what its config has under `configurable`, with the result.

    LangChain hands it to its own tracer only. Where its argument is gone, a session or a user that is said there alone
    is not known; before langchain-core 1.2 it was part of the metadata.
    """
    for kind in _MANAGERS:
        configure = kind.__dict__["configure"]
        if not hasattr(configure.__func__, "__wrapped__"):
            kind.configure = classmethod(_noting(configure.__func__, on_configure, on_manager))


def unwrap_configure() -> None:
    """Undo `wrap_configure`."""
    for kind in _MANAGERS:
        if original := getattr(kind.__dict__["configure"].__func__, "__wrapped__", None):
            kind.configure = classmethod(original)


def _noting(configure: Callable[..., Any], on_configure: OnConfigure, on_manager: OnManager) -> Callable[..., Any]:
    @wraps(configure)
    def noting(cls: type, *args: Any, **kwargs: Any) -> Any:
        on_configure(kwargs.get(CONFIGURABLE))
        manager = configure(cls, *args, **kwargs)
        on_manager(manager)
        return manager

    return noting


def wrap_llm_start() -> None:
    """Let other handlers hear of the start of a text model that is called asynchronously.

    With any inline handler, LangChain tells only those that are inline: streams of events and tracers would lack the
    call. Therefore our handlers are told apart from the others, after them.
    """
    start = AsyncCallbackManager.on_llm_start
    if not hasattr(start, "__wrapped__"):
        AsyncCallbackManager.on_llm_start = _telling_ours_apart(start)


def unwrap_llm_start() -> None:
    """Undo `wrap_llm_start`."""
    if original := getattr(AsyncCallbackManager.on_llm_start, "__wrapped__", None):
        AsyncCallbackManager.on_llm_start = original


def _telling_ours_apart(start: Callable[..., Any]) -> Any:
    @wraps(start)
    async def on_llm_start(
        self: AsyncCallbackManager, serialized: dict[str, Any], prompts: list[str], *args: Any, **kwargs: Any
    ) -> Sequence[AsyncCallbackManagerForLLMRun]:
        others = [each for each in self.handlers if not isinstance(each, InlineHandler)]
        if not others or len(others) == len(self.handlers):
            return await start(self, serialized, prompts, *args, **kwargs)
        apart = copy(self)
        apart.handlers = others
        runs: Sequence[AsyncCallbackManagerForLLMRun] = await start(apart, serialized, prompts, *args, **kwargs)
        ours: list[BaseCallbackHandler] = [each for each in self.handlers if isinstance(each, InlineHandler)]
        named = {"parent_run_id": self.parent_run_id, "tags": self.tags, "metadata": self.metadata}
        kwargs.pop("run_id", None)
        for prompt, run in zip(prompts, runs, strict=True):
            run.handlers = self.handlers
            await ahandle_event(
                ours, "on_llm_start", "ignore_llm", serialized, [prompt], run_id=run.run_id, **named, **kwargs
            )
        return runs

    return on_llm_start


def keep_callback_managers(instrument: Callable[[], None]) -> None:
    """Call a function that instruments LangChain, and undo its change to the creation of callback managers.

    OpenInference would add its tracer to every manager, sampled or not; `instrumentor` adds it instead.
    """
    init = BaseCallbackManager.__init__
    instrument()
    BaseCallbackManager.__init__ = init


def _wrapped(enter: Callable[..., Any], on_enter: Callable[[RunnableConfig], None]) -> Callable[..., Any]:
    @wraps(enter)
    def entered(config: RunnableConfig, *args: Any) -> Any:
        result = enter(config, *args)
        on_enter(config)
        return result

    return entered


def _modules() -> Iterator[ModuleType]:
    for name in ENTRANCES:
        try:
            yield import_module(name)
        except ModuleNotFoundError:
            continue
