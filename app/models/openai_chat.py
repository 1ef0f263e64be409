"""OpenAI's chat model, which requests the usage of streams from every server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import langchain_openai
from langchain_core.outputs import ChatGenerationChunk
from openai import APIStatusError
from pydantic import PrivateAttr


class ChatOpenAI(langchain_openai.ChatOpenAI):
    """A chat model that reports the usage of streams, if the server supports `stream_options`.

    If the server refuses `stream_options`, the request is repeated without them, and they are not sent again.
    """

    stream_usage: bool | None = True
    # Halves of characters whose other half is in the next piece, by the id of their answer.
    _halves: dict[str, str] = PrivateAttr(default_factory=dict)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        try:
            yield from super()._stream(*args, **kwargs)
        except APIStatusError as refusal:
            self._disable_usage(refusal)
            yield from super()._stream(*args, **kwargs)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        try:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
        except APIStatusError as refusal:
            self._disable_usage(refusal)
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict, default_chunk_class: type, base_generation_info: dict | None
    ) -> ChatGenerationChunk | None:
        # A method of langchain-openai's own, which drops the words of a streamed refusal. If it is renamed, refusals
        # are empty answers again.
        self._join_halves(chunk)
        generation = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        choices = chunk.get("choices") or [{}]
        if generation and (refusal := (choices[0].get("delta") or {}).get("refusal")):
            generation.message.additional_kwargs["refusal"] = refusal
        return generation

    def _join_halves(self, chunk: dict) -> None:
        """Join the halves of an emoji that some servers send in two pieces: text with one half cannot be stored."""
        answer_id, choices = chunk.get("id") or "", chunk.get("choices") or []
        delta = choices[0].get("delta") if choices else None
        if delta is None:
            return
        text = self._halves.pop(answer_id, "") + (delta.get("content") or "")
        if not text:
            return
        # The last piece has nothing after it; without an id, two answers could be mixed.
        if "\ud800" <= text[-1] <= "\udbff" and answer_id and not choices[0].get("finish_reason"):
            self._halves[answer_id], text = text[-1], text[:-1]
        delta["content"] = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _disable_usage(self, refusal: APIStatusError) -> None:
        if refusal.status_code >= 500 or "stream_options" not in str(refusal):
            raise refusal
        self.stream_usage = False
