"""A span is read as Langfuse reads it, whichever of its formats it has."""

from typing import Any

import pytest

from telemetry.export.otlp import Span
from telemetry.viewer.observation import Observation


def observed(**attributes: Any) -> Observation:
    return Observation(Span("1" * 32, "1" * 16, None, "a span", "INTERNAL", 1, 2, attributes))


SAID = {"input.value": "asked", "output.value": "answered"}


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        (SAID, ("asked", "answered")),
        # All formats in one: the other text, or both, are on another span.
        ({**SAID, "langfuse.observation.output": "own"}, (None, "own")),
        ({**SAID, "langfuse.observation.input": ""}, (None, None)),
        ({"gen_ai.input.messages": "[]", "gen_ai.output.messages": "[1]"}, ("[]", "[1]")),
        ({"gen_ai.tool.call.arguments": "{}", "gen_ai.tool.call.result": "408"}, ("{}", "408")),
        ({"gen_ai.retrieval.query.text": "q"}, ("q", None)),
        ({"input": "a", "output": "b"}, ("a", "b")),
        ({}, (None, None)),
    ],
)
def test_input_and_output_are_found_in_each_format(attributes: dict[str, Any], shown: tuple[Any, Any]) -> None:
    """Langfuse's own attributes count alone, also where one of them is empty or missing."""
    found = observed(**attributes)

    assert (found.input, found.output) == shown


def test_the_genai_conventions_are_read() -> None:
    """Model, tokens, parameters, session and first token are found under the conventions' names."""
    found = observed(
        **{
            "gen_ai.operation.name": "chat",
            "gen_ai.conversation.id": "t-1",
            "gen_ai.request.model": "m",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.cache_write.input_tokens": 4,
        }
    )

    assert (found.type, found.model, found.session_id, found.first_token) == ("GENERATION", "m", "t-1", 0.25)
    assert found.usage == {"input": 6, "input_cache_creation": 4}
    assert found.model_parameters == {"temperature": 0.5}
