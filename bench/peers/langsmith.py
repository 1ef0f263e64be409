"""LangSmith, which LangChain traces to by itself."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ |= {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "bench", "LANGSMITH_ENDPOINT": endpoint}
    from langsmith.run_trees import get_cached_client

    return Tracing(flush=lambda: get_cached_client().flush())
