"""The tools that read the files of a thread."""

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException, tool

from app.files import File, Files

# The most bytes of a file that the model gets.
MAX_BYTES = 20_000


def file_tools(files: Files) -> Sequence[BaseTool]:
    """Return the tools `list_files` and `read_file`, which have access to the current thread only."""

    @tool
    async def list_files(config: RunnableConfig) -> str:
        """List the files of this conversation: name, type and size in bytes."""
        thread_files = await files.catalogue.of_thread(_thread_id(config))
        return (
            "\n".join(f"{file.name} ({file.type}, {file.size} bytes)" for file in thread_files) or "There are no files."
        )

    @tool
    async def read_file(name: str, config: RunnableConfig) -> str:
        """Read the text in a file of this conversation; of a long one its beginning."""
        file = _find(name, await files.catalogue.of_thread(_thread_id(config)))
        head = b""
        async for data in await files.open(file):
            head += data
            if len(head) >= MAX_BYTES:
                break
        text = head[:MAX_BYTES].decode(errors="ignore")
        return text if file.size <= MAX_BYTES else f"{text}\n… (the beginning of {file.size} bytes)"

    return [list_files, read_file]


def _find(name: str, files: Sequence[File]) -> File:
    file = next((file for file in reversed(files) if file.name.casefold() == name.strip().casefold()), None)
    if file is None:
        raise ToolException(f"There is no file {name}; there are: {', '.join(file.name for file in files) or 'none'}.")
    if not file.type.startswith("text/"):
        raise ToolException(f"{file.name} is {file.type}: only text files can be read.")
    return file


def _thread_id(config: RunnableConfig) -> str:
    return config.get("configurable", {})["thread_id"]
