"""The tools by which an agent reads the files of its thread."""

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException, tool

from app.files import File, Files

# What a model is given of one file.
MOST_BYTES = 20_000


def file_tools(files: Files) -> Sequence[BaseTool]:
    """The tools `list_files` and `read_file`; they see the thread that they are called on, and no other."""

    @tool
    async def list_files(config: RunnableConfig) -> str:
        """List the files of this conversation: name, type and size in bytes."""
        found = await files.catalogue.of_thread(_thread(config))
        return "\n".join(f"{file.name} ({file.type}, {file.size} bytes)" for file in found) or "There are no files."

    @tool
    async def read_file(name: str, config: RunnableConfig) -> str:
        """Read the text in a file of this conversation; of a long one its beginning."""
        file = _named(name, await files.catalogue.of_thread(_thread(config)))
        head = b""
        async for data in await files.open(file):
            head += data
            if len(head) >= MOST_BYTES:
                break
        text = head[:MOST_BYTES].decode(errors="ignore")
        return text if file.size <= MOST_BYTES else f"{text}\n… (the beginning of {file.size} bytes)"

    return [list_files, read_file]


def _named(name: str, among: Sequence[File]) -> File:
    file = next((file for file in reversed(among) if file.name.casefold() == name.strip().casefold()), None)
    if file is None:
        raise ToolException(f"There is no file {name}; there are: {', '.join(file.name for file in among) or 'none'}.")
    if not file.type.startswith("text/"):
        raise ToolException(f"{file.name} is {file.type}: only texts can be read.")
    return file


def _thread(config: RunnableConfig) -> str:
    return config.get("configurable", {})["thread_id"]
