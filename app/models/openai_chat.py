"""OpenAI's chat model, asking every server for the usage of a stream."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import langchain_openai
from langchain_core.outputs import ChatGenerationChunk
from openai import BadRequestError


class ChatOpenAI(langchain_openai.ChatOpenAI):
    """A chat model that reports its usage on streams too, except where the server refuses to be asked for it.

    A server that does not know `stream_options` is asked once more without, and never again with.
    """

    stream_usage: bool | None = True

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        try:
            yield from super()._stream(*args, **kwargs)
        except BadRequestError as refusal:
            self._forgo_usage(refusal)
            yield from super()._stream(*args, **kwargs)

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        try:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
        except BadRequestError as refusal:
            self._forgo_usage(refusal)
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk

    def _forgo_usage(self, refusal: BadRequestError) -> None:
        if "stream_options" not in str(refusal):
            raise refusal
        self.stream_usage = False
