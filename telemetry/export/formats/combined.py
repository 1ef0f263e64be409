"""The format for several backends at once: Langfuse's, OpenInference's and the GenAI conventions' attributes."""

from telemetry.export.formats.langfuse import INPUT, OUTPUT, langfuse
from telemetry.export.formats.openinference import openinference
from telemetry.export.formats.otel_genai import GenaiFormat
from telemetry.export.otlp import Span

# Where Langfuse looks for the content of a span, in addition to its own attributes.
_OWN = (INPUT, OUTPUT)
_CONTENT = ("input.value", "output.value")
_BESIDE = ("llm.input_messages.", "llm.output_messages.", "gen_ai.input.", "gen_ai.output.", "gen_ai.tool.call.")


class CombinedFormat:
    """Converts spans to all three formats, with a text in each of them; Langfuse shows what it shows of its own."""

    def __init__(self, max_value_bytes: int = 0) -> None:
        self._genai = GenaiFormat(max_value_bytes)

    def __call__(self, span: Span) -> Span:
        """Return the span with the attributes of all formats; where two have the same one, Langfuse's counts."""
        shown, plain, genai = langfuse(span), openinference(span), self._genai(span)
        attributes = {**genai.attributes, **plain.attributes, **shown.attributes}
        is_silent = shown.attributes.keys().isdisjoint((*_OWN, *_CONTENT))
        if is_silent and any(key in _CONTENT or key.startswith(_BESIDE) for key in attributes):
            # Langfuse takes an empty input for one, and does not look further.
            attributes[INPUT] = ""
        return plain.but(attributes=attributes)
