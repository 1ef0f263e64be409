"""One cell of one variant, measured in this process alone: `python -m bench.child VARIANT CELL ENDPOINT`.

The figures go, as JSON, to the file `figures.json` of the current folder.
"""

import json
import resource
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.backend import Backend
from bench.cells import Cell
from bench.tracing import start

MEASURES = {"invoke": "turns", "stream": "turns", "paced": "paced", "saturated": "paced", "sse": "web", "httpx": "web"}
TOLD = (
    "langgraph",
    "langchain-core",
    "opentelemetry-sdk",
    "openinference-instrumentation-langchain",
    "langfuse",
    "langsmith",
    "logfire",
    "traceloop-sdk",
    "openlit",
    "arize-phoenix-otel",
    "mlflow-tracing",
    "opik",
    "fastapi",
)


def main(variant: str, cell: Cell, endpoint: str) -> None:
    """Write the figures."""
    measure = import_module(f"bench.{MEASURES[cell.mode]}").measure
    before = time.process_time()
    tracing = start(variant, endpoint)
    imported = time.process_time() - before
    figures = measure(cell, tracing, Backend(endpoint))
    figures |= tracing.figures()
    figures["import_ms"] = imported * 1e3
    figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["versions"] = versions()
    Path("figures.json").write_text(json.dumps(figures))


def versions() -> dict[str, str]:
    """Return the versions of what is compared, as far as it is installed here."""
    found = {}
    for name in TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1], Cell(**json.loads(sys.argv[2])), sys.argv[3])
