"""Link a model call to the version of the prompt that it was given, as Langfuse's own handler does."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from opentelemetry.util.types import AttributeValue

from telemetry.lru_cache import LruCache

# Under this key of a config's or a prompt template's metadata stands a prompt of the Langfuse SDK, or one of ours.
KEY = "langfuse_prompt"
_NAME, _VERSION = "langfuse.observation.prompt.name", "langfuse.observation.prompt.version"
_SOURCE = "langfuse.observation.metadata.prompt_source"
_REMEMBERED = 1024

Link = Mapping[str, AttributeValue]


class PromptLinks:
    """The prompts whose model calls are still to come, by the run in which they were filled in."""

    def __init__(self) -> None:
        self._waiting: LruCache[UUID, Link] = LruCache(_REMEMBERED)

    def on_run_start(
        self, run_id: UUID, parent_id: UUID | None, run_type: str, metadata: Mapping[str, Any] | None
    ) -> Link:
        """Return the attributes that link a model call; nothing for any other run, and where there is no prompt."""
        link = _link((metadata or {}).get(KEY))
        inherited = (self._waiting.get(parent_id) or {}) if parent_id else {}
        if run_type == "llm":
            if parent_id and inherited:
                # A prompt belongs to the first call after it.
                self._waiting.put(parent_id, {})
            return link or inherited
        if run_type == "prompt" and link and parent_id:
            self._waiting.put(parent_id, link)
        elif inherited:
            self._waiting.put(run_id, inherited)
        return {}


def without_prompt(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of a run without the prompt, which is linked instead."""
    return {key: value for key, value in metadata.items() if key != KEY} if KEY in metadata else metadata


def _link(prompt: Any) -> Link:
    fields = prompt if type(prompt) is dict else getattr(prompt, "__dict__", {})
    name, version, source = fields.get("name"), fields.get("version"), fields.get("source")
    beside: dict[str, AttributeValue] = {_SOURCE: source} if type(source) is str else {}
    if type(name) is not str or type(version) is not int or fields.get("is_fallback"):
        return beside
    return {_NAME: name, _VERSION: version, **beside}
