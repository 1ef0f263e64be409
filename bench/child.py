"""Measure one cell of one variant in this process: `python -m bench.child VARIANT CELL ENDPOINT`.

The figures are written to `figures.json` in the current folder.
"""

import json
import resource
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.matrix import Cell
from bench.sink import SinkClient
from bench.variants import start

MEASURES = {"invoke": "turns", "stream": "turns", "paced": "load", "saturated": "load", "sse": "web", "httpx": "web"}
PACKAGES = (
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
    """Measure the cell and write the figures."""
    measure = import_module(f"bench.{MEASURES[cell.mode]}").measure
    before = time.process_time()
    tracing = start(variant, endpoint)
    imported = time.process_time() - before
    figures = measure(cell, tracing, SinkClient(endpoint))
    figures |= tracing.figures()
    figures["import_ms"] = imported * 1e3
    figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["versions"] = versions()
    Path("figures.json").write_text(json.dumps(figures))


def versions() -> dict[str, str]:
    """Return the versions of the compared packages that are installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1], Cell(**json.loads(sys.argv[2])), sys.argv[3])
