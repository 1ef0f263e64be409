"""What a turn's model calls took."""

from collections import Counter
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from app.models.prices import INPUT, OUTPUT


class Usage(BaseCallbackHandler):
    """Adds up the tokens that the models of a turn say they took, those of sub-agents among them."""

    run_inline = True

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Count one call, where the model told."""
        for generation in response.generations[0][:1] if response.generations else ():
            message = generation.message if isinstance(generation, ChatGeneration) else None
            if isinstance(message, AIMessage) and (told := message.usage_metadata):
                self._counts[INPUT] += told[INPUT]
                self._counts[OUTPUT] += told[OUTPUT]
