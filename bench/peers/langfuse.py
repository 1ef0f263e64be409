"""Langfuse's callback handler."""

import os

from bench.variants import Tracing


def start(endpoint: str) -> Tracing:
    """Return it."""
    os.environ |= {"LANGFUSE_PUBLIC_KEY": "pk-lf-bench", "LANGFUSE_SECRET_KEY": "sk-lf-bench"}
    os.environ["LANGFUSE_BASE_URL"] = endpoint
    from langfuse import get_client
    from langfuse.langchain import CallbackHandler

    return Tracing(flush=get_client().flush, callbacks=[CallbackHandler()])
