"""The private names of other projects that are used are there, and do what they are used for."""

import logging
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.documents import Document
from langchain_core.tracers import BaseTracer
from openinference.instrumentation.langchain import LangChainInstrumentor, _tracer
from opentelemetry.sdk.trace import TracerProvider

from telemetry.instrumentation.langchain import langchain_internals, openinference_internals
from telemetry.instrumentation.langchain.model_attributes import flatten

MESSAGE = {
    "id": ["AIMessage"],
    "kwargs": {
        "content": "fine",
        "additional_kwargs": {"function_call": {"name": "look", "arguments": "{}"}},
        "usage_metadata": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        "response_metadata": {"finish_reason": "stop", "model_name": "m-1"},
    },
}
OUTPUTS = {"llm_output": None, "generations": [[{"text": "fine", "generation_info": None, "message": MESSAGE}]]}
EXTRA = {"invocation_params": {"model": "m-1"}, "metadata": {"ls_provider": "openai"}}
TEMPLATE = {"kwargs": {"template": "Hi {name}", "input_variables": ["name"]}, "id": ["PromptTemplate"]}

# What is given to each, and an attribute that has to come out.
CALLS: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "_llm_provider": ((EXTRA,), "llm.provider"),
    "_llm_system": ((EXTRA,), "llm.system"),
    "_model_name": ((OUTPUTS, EXTRA), "llm.model_name"),
    "_output_messages": ((OUTPUTS,), "llm.output_messages.0.message.content"),
    "_token_counts": ((OUTPUTS,), "llm.token_count.completion"),
    "_finish_reason": ((OUTPUTS,), "llm.finish_reason"),
    "_function_calls": ((OUTPUTS,), "llm.function_call"),
    "_parse_prompt_template": (({"name": "Ada"}, TEMPLATE), "llm.prompt_template.template"),
    "_as_document": ((Document("found"),), "document.content"),
}


@pytest.mark.parametrize("name", openinference_internals.LOST_WITHOUT)
def test_openinference_reads_what_it_is_used_for(name: str) -> None:
    """Each private function of OpenInference is there and returns its attributes."""
    lost = f"openinference {name}: {openinference_internals.LOST_WITHOUT[name]}"
    function = getattr(_tracer, name, None)
    assert function, lost
    if name in CALLS:
        arguments, attribute = CALLS[name]
        assert attribute in dict(flatten(function(*arguments))), lost
    else:
        assert function("tool").value == "TOOL", lost


def test_a_missing_function_costs_only_its_attributes(caplog: pytest.LogCaptureFixture) -> None:
    """Without a private function nothing is raised: spans lack its attributes, and the log says which."""
    missing = "_token_counts"
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.delattr(_tracer, missing)
        assert list(openinference_internals._private(missing)(OUTPUTS)) == []
    assert openinference_internals.LOST_WITHOUT[missing] in caplog.text


def test_openinference_keeps_its_tracer() -> None:
    """The instrumentor holds the callback handler that it has made."""
    instrumentor = LangChainInstrumentor()
    langchain_internals.keep_callback_managers(lambda: instrumentor.instrument(tracer_provider=TracerProvider()))
    try:
        made = openinference_internals.tracer_of(instrumentor)
        assert isinstance(made, _tracer.OpenInferenceTracer), "TELEMETRY_LANGCHAIN=openinference records no run"
    finally:
        instrumentor.uninstrument()


def test_instrumenting_leaves_callback_managers_alone() -> None:
    """OpenInference's change of how managers are made is undone."""
    init, instrumentor = BaseCallbackManager.__init__, LangChainInstrumentor()
    langchain_internals.keep_callback_managers(lambda: instrumentor.instrument(tracer_provider=TracerProvider()))
    try:
        assert BaseCallbackManager.__init__ is init
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize("name", langchain_internals.ENTRANCES)
def test_runs_enter_their_context_where_it_is_wrapped(name: str) -> None:
    """LangChain and LangGraph enter a run's config, in a copied context, by the function that is wrapped."""
    lost = f"{name}: spans made inside of nodes and tools hang under the request"
    module = import_module(name)
    enter = getattr(module, "_set_config_context", None)
    assert enter, lost
    assert next(iter(signature(enter).parameters)) == "config", lost
    assert {"copy_context", "_set_config_context"} <= set(module.set_config_context.__wrapped__.__code__.co_names), lost


@pytest.mark.parametrize("name", ["_start_trace", "_end_trace", "_get_run", "_get_stacktrace"])
def test_what_the_tracer_overrides_is_there(name: str) -> None:
    """The methods of LangChain's own tracer that ours extends exist under their names."""
    assert hasattr(BaseTracer, name), f"BaseTracer.{name}: TELEMETRY_LANGCHAIN=openinference ends no run"


def test_the_sdk_has_one_processor_for_all_spans() -> None:
    """A provider hands finished spans on by `_active_span_processor`."""
    lost = "the turn of a process that died never ends in its trace"
    assert hasattr(getattr(TracerProvider(), "_active_span_processor", None), "on_end"), lost
