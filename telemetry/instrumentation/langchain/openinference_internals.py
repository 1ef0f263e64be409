"""Every private name of OpenInference's LangChain instrumentor that is used here, and what is lost without it.

They read a run according to OpenInference's conventions. Without one of them, spans lack what it read, a log line says
so, and the contract test fails with the same sentence.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from uuid import UUID

from openinference.instrumentation.langchain import LangChainInstrumentor, _tracer
from openinference.instrumentation.langchain._tracer import OpenInferenceTracer
from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

Attributes = Iterable[tuple[str, Any]]

__all__ = ["LOST_WITHOUT", "OpenInferenceTracer"]

# What spans lack if a function is removed or renamed.
LOST_WITHOUT = {
    "_llm_provider": "model spans do not say who serves the model (llm.provider)",
    "_llm_system": "model spans do not say which system the model is of (llm.system)",
    "_model_name": "model spans do not name the model (llm.model_name), so that backends know no price",
    "_output_messages": "model spans have no answer in OpenInference's shape (llm.output_messages.*)",
    "_token_counts": "model spans have no usage (llm.token_count.*), so that backends show no tokens and no cost",
    "_finish_reason": "model spans do not say why the model stopped (llm.finish_reason)",
    "_function_calls": "model spans lack legacy function calls (llm.function_call)",
    "_parse_prompt_template": "prompt spans lack their template and its variables (llm.prompt_template.*)",
    "_as_document": "retriever spans lack the documents that were found (retrieval.documents.*)",
    "_langchain_run_type_to_span_kind": "spans of tools, models and retrievers have no kind of their own",
}


def _private(name: str) -> Callable[..., Any]:
    found = getattr(_tracer, name, None)
    if found is None:
        logger.warning("openinference-instrumentation-langchain has no %s any more: %s", name, LOST_WITHOUT[name])
        return lambda *_: ()
    return found


llm_provider: Callable[[Mapping[str, Any]], Attributes] = _private("_llm_provider")
llm_system: Callable[[Mapping[str, Any]], Attributes] = _private("_llm_system")
model_name: Callable[[Mapping[str, Any] | None, Mapping[str, Any]], Attributes] = _private("_model_name")
output_messages: Callable[[Mapping[str, Any]], Attributes] = _private("_output_messages")
token_counts: Callable[[Mapping[str, Any]], Attributes] = _private("_token_counts")
finish_reason: Callable[[Mapping[str, Any]], Attributes] = _private("_finish_reason")
function_calls: Callable[[Mapping[str, Any]], Attributes] = _private("_function_calls")
prompt_template: Callable[[Any, Any], Attributes] = _private("_parse_prompt_template")
document: Callable[[Any], Attributes] = _private("_as_document")
_kind_of_run_type: Callable[[str], Any] = _private("_langchain_run_type_to_span_kind")


def span_kind(run_type: str) -> str:
    """Return the span kind of LangChain's run type."""
    return getattr(_kind_of_run_type(run_type), "value", "CHAIN")


def tracer_of(instrumentor: LangChainInstrumentor) -> OpenInferenceTracer | None:
    """Return the callback handler that an active instrumentor has created, None if it was already in use.

    Without `LangChainInstrumentor._tracer`, TELEMETRY_LANGCHAIN=openinference records no run.
    """
    return getattr(instrumentor, "_tracer", None)


class _Runs:
    def __init__(self, get_run: Callable[[UUID], Any]) -> None:
        self._get_run = get_run

    def get(self, run_id: str) -> Any:
        return self._get_run(UUID(run_id))


class _Tracer:
    def __init__(self, get_span: Callable[[UUID], Span | None], get_run: Callable[[UUID], Any]) -> None:
        self.get_span = get_span
        self.run_map = _Runs(get_run)


def lend_runs(get_span: Callable[[UUID], Span | None], get_run: Callable[[UUID], Any]) -> None:
    """Answer OpenInference's `get_current_span` and `get_ancestor_spans` from the runs of another handler.

    Without `LangChainInstrumentor._tracer` they find no span with TELEMETRY_LANGCHAIN=recorder.
    """
    LangChainInstrumentor()._tracer = cast(Any, _Tracer(get_span, get_run))  # noqa: SLF001 - see above


def take_back_runs() -> None:
    """Undo `lend_runs`."""
    if isinstance(getattr(LangChainInstrumentor(), "_tracer", None), _Tracer):
        LangChainInstrumentor()._tracer = None  # noqa: SLF001 - see above
