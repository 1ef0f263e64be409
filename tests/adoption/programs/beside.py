"""The service of `langgraph_service.py` in a process where another library traces too: BESIDE="logfire before"."""

# pyright: reportMissingImports=false
# Each library is in an environment of its own.

import os
import sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import telemetry

NOWHERE = "http://127.0.0.1:9"


def chromadb() -> None:
    import chromadb

    documents = chromadb.EphemeralClient().create_collection("documents")
    documents.add(ids=["1"], embeddings=[[1.0, 0.0]], documents=["12*34 is 408."])
    documents.query(query_embeddings=[[1.0, 0.0]], n_results=1)


def logfire() -> None:
    import logfire

    logfire.configure(send_to_logfire=False, console=False)


def traceloop() -> None:
    from traceloop.sdk import Traceloop

    Traceloop.init("strangers-service", api_endpoint=NOWHERE, api_key="key", telemetry_enabled=False, instruments=set())


def azure() -> None:
    from azure.monitor.opentelemetry import configure_azure_monitor

    # It records five traces a second, unless it is told otherwise.
    os.environ["OTEL_TRACES_SAMPLER"] = "always_on"
    key = "00000000-0000-0000-0000-000000000000"
    disabled = {name: {"enabled": False} for name in ("django", "fastapi", "flask", "requests", "urllib", "urllib3")}
    configure_azure_monitor(
        connection_string=f"InstrumentationKey={key};IngestionEndpoint={NOWHERE}", instrumentation_options=disabled
    )


def google_adk() -> None:
    import google.adk.agents

    google.adk.agents.LlmAgent(name="clerk", model="gemini-2.5-flash")


def ddtrace() -> None:
    import ddtrace

    ddtrace.patch(httpx=True, fastapi=True)


def langfuse() -> None:
    from langfuse import Langfuse

    Langfuse()


def sdk() -> None:
    trace.set_tracer_provider(TracerProvider())


if __name__ == "__main__":
    # Without it only the service is run.
    library, when = os.environ.get("BESIDE", "none never").split()
    if when == "before":
        globals()[library]()
    telemetry.configure("strangers-service")
    if when == "after":
        globals()[library]()
    sys.path.insert(0, str(Path(__file__).parent))
    import langgraph_service

    langgraph_service.main()
