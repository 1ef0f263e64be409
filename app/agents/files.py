"""Give an agent the files of its thread: as text, or as they are where the model takes them."""

from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from anyio.to_thread import run_sync
from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException, tool

from app.files import File, Files, Refusal
from app.files.images import MODEL_IMAGES, ImageError, check_image
from app.files.text import DocumentError, document_text, encoding_of, is_document
from app.messages import since_last_human
from app.models.models import Models

# The most bytes or characters of a text that the model gets.
MAX_TEXT = 20_000
# Providers take files of up to 20 MB, encoded.
MAX_ATTACHED_BYTES = 10_000_000
# Of more files in a turn, the model sees the latest.
MAX_ATTACHED = 5
PDF = "application/pdf"
# By the names that providers have for their formats.
_AUDIO = {"audio/mpeg": "audio/mp3", "audio/x-wav": "audio/wav", "audio/wav": "audio/wav"}


class ThreadFiles:
    """The files of the thread that an agent runs on.

    Its tools list the files and read them. `read_file` returns text; a file that the model takes as it is, such as an
    image, is attached to the conversation for the rest of the turn: only its id is stored with the thread.
    """

    def __init__(self, files: Files, models: Models) -> None:
        self._files = files
        self._models = models
        self.tools: Sequence[BaseTool] = self._build_tools()

    async def attach(self, messages: Sequence[AnyMessage]) -> list[AnyMessage]:
        """Return the conversation with the files that were read in this turn, as content of a message at its end."""
        read = [message.artifact for message in since_last_human(messages) if isinstance(message, ToolMessage)]
        file_ids = list(dict.fromkeys(artifact["file_id"] for artifact in read if _is_attachment(artifact)))
        parts: list[str | dict[str, Any]] = []
        for file_id in file_ids[-MAX_ATTACHED:]:
            # It may have been deleted in the meantime.
            with suppress(Refusal):
                if file := await self._files.catalogue.find(file_id):
                    parts += [{"type": "text", "text": f"{file.name}:"}, _block(file, await self._content(file))]
        return [*messages, HumanMessage(parts)] if parts else list(messages)

    def _build_tools(self) -> Sequence[BaseTool]:
        @tool
        async def list_files(config: RunnableConfig) -> str:
            """List the files of this conversation: name, type and size in bytes."""
            listed = await self._files.catalogue.of_thread(_thread_id(config))
            return (
                "\n".join(f"{file.name} ({file.type}, {file.size} bytes)" for file in listed) or "There are no files."
            )

        @tool(response_format="content_and_artifact")
        async def read_file(name: str, config: RunnableConfig) -> tuple[str, dict[str, str] | None]:
            """Read a file of this conversation: text, document, image or sound; of a long text its beginning."""
            file = _find(name, await self._files.catalogue.of_thread(_thread_id(config)))
            if file.type.startswith("text/"):
                return await self._text(file), None
            if kind := _kind(file):
                if self._models.accept(kind, config):
                    return await self._attached(file), {"attached": kind, "file_id": file.file_id}
                if not is_document(file.type):
                    raise ToolException(f"{file.name} is {file.type}: the model that you are cannot take any {kind}.")
            if is_document(file.type):
                return await self._document(file), None
            raise ToolException(f"{file.name} is {file.type}, which cannot be read.")

        return [list_files, read_file]

    async def _text(self, file: File) -> str:
        head = b""
        async for data in await self._files.open(file):
            head += data
            if len(head) >= MAX_TEXT:
                break
        head = head[:MAX_TEXT]
        text = head.decode(await run_sync(encoding_of, head) or "utf_8", errors="ignore")
        return text if file.size <= MAX_TEXT else f"{text}\n… (the beginning of {file.size} bytes)"

    async def _document(self, file: File) -> str:
        content = await self._content(file)
        try:
            text = await document_text(content, file.type, MAX_TEXT + 1)
        except DocumentError as error:
            raise ToolException(f"{file.name} cannot be read: {error}.") from error
        if not text.strip():
            raise ToolException(f"{file.name} has no text; its pages may be images.")
        return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n… (the beginning of the text)"

    async def _attached(self, file: File) -> str:
        """Check the file, because a provider may refuse the whole request for a damaged one."""
        if file.size > MAX_ATTACHED_BYTES:
            raise ToolException(f"{file.name} has {file.size} bytes: at most {MAX_ATTACHED_BYTES} can be read.")
        content = await self._content(file)
        try:
            if file.type in MODEL_IMAGES:
                await run_sync(check_image, content, file.type)
            elif file.type == PDF:
                await document_text(content, file.type, 1)
        except (ImageError, DocumentError) as error:
            raise ToolException(f"{file.name} cannot be read: {error}.") from error
        return f"The content of {file.name} follows."

    async def _content(self, file: File) -> bytes:
        return b"".join([data async for data in await self._files.open(file)])


def _is_attachment(artifact: Any) -> bool:
    return isinstance(artifact, dict) and "attached" in artifact


def _kind(file: File) -> str | None:
    """Return how a model would take the file, None if none does."""
    if file.type in MODEL_IMAGES:
        return "image"
    return "pdf" if file.type == PDF else "audio" if file.type in _AUDIO else None


def _block(file: File, content: bytes) -> dict[str, Any]:
    data = b64encode(content).decode()
    if file.type == PDF:
        return {"type": "file", "base64": data, "mime_type": PDF, "filename": file.name}
    kind = "audio" if file.type in _AUDIO else "image"
    return {"type": kind, "base64": data, "mime_type": _AUDIO.get(file.type, file.type)}


def _find(name: str, files: Sequence[File]) -> File:
    file = next((file for file in reversed(files) if file.name.casefold() == name.strip().casefold()), None)
    if file is None:
        raise ToolException(f"There is no file {name}; there are: {', '.join(file.name for file in files) or 'none'}.")
    return file


def _thread_id(config: RunnableConfig) -> str:
    return config.get("configurable", {})["thread_id"]
