"""OpenInference as it comes: its instrumentor, the SDK's batch processor, OTLP; and the stock web instrumentors."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    LangChainInstrumentor().instrument(tracer_provider=provider)
    HTTPXClientInstrumentor().instrument()
    return Tracing(flush=provider.force_flush, serve=FastAPIInstrumentor.instrument_app)
