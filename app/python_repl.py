"""The tool that runs Python for a model, outside of this process and shut in."""

from asyncio import to_thread
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, ToolException, tool

import telemetry
from app.sandbox import Limits, Outcome, Refused, run

MAX_CODE = 50_000
MAX_IMAGES = 4
MAX_IMAGE = 500_000
# What one thread may keep from call to call.
MAX_FOLDER = 100 * 2**20

Artifact = dict[str, list[dict[str, str]]]


def make_python_repl(folder: Path, limits: Limits | None = None) -> BaseTool:
    """Return the tool `python_repl`, which keeps each thread's files in a folder of its own below this one."""

    @tool(response_format="content_and_artifact")
    async def python_repl(code: str, runtime: ToolRuntime) -> tuple[str, Artifact]:
        """Run Python code and return what it prints, and the value of a last expression.

        Each call is a new process: only files in the current folder remain. There is the standard library and no
        network. A plot is shown if it is saved there as a .png file.
        """
        place = folder / str(runtime.config.get("configurable", {}).get("thread_id", "unnamed"))
        before = await to_thread(_state, place)
        _check(code, before)
        try:
            outcome = await run(code, place, limits)
        except Refused as error:
            telemetry.get_span().set_attribute("python.isolated", value=False)
            raise ToolException(str(error)) from error
        _tell(outcome)
        if outcome.killed or outcome.status:
            raise ToolException(_failure(outcome))
        images = await to_thread(_images, place, before)
        shown = [f"[image {image['name']}]" for image in images]
        return "\n".join([outcome.output.rstrip(), *shown]).strip() or "(no output)", {"images": images}

    return python_repl


def _check(code: str, kept: Mapping[Path, tuple[int, int]]) -> None:
    if len(code) > MAX_CODE:
        raise ToolException(f"The code is longer than {MAX_CODE:,} characters: run it in parts.")
    if sum(size for size, _ in kept.values()) > MAX_FOLDER:
        raise ToolException(f"The thread's files are larger than {MAX_FOLDER:,} bytes: begin a new thread.")


def _tell(outcome: Outcome) -> None:
    known: dict[str, Any] = {
        "python.isolated": True,
        "python.exit_status": outcome.status,
        "python.cpu_s": outcome.cpu_s,
        "python.peak_bytes": outcome.peak_bytes,
    }
    telemetry.get_span().set_attributes(known | ({"python.killed": outcome.killed} if outcome.killed else {}))


def _failure(outcome: Outcome) -> str:
    why = f"Stopped, {outcome.killed}." if outcome.killed else f"Exit status {outcome.status}."
    return f"{why}\n{outcome.output[-4_000:]}".strip()


def _state(folder: Path) -> dict[Path, tuple[int, int]]:
    """The size and the time of each file; a link leads nowhere, so that nothing outside is ever read."""
    if not folder.is_dir():
        return {}
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def _images(folder: Path, before: Mapping[Path, tuple[int, int]]) -> list[dict[str, str]]:
    made = [
        path
        for path, state in _state(folder).items()
        if path.suffix == ".png" and before.get(path) != state and state[0] <= MAX_IMAGE
    ]
    contents = {path: path.read_bytes() for path in sorted(made)[:MAX_IMAGES]}
    return [
        {"name": path.name, "type": "image/png", "base64": b64encode(content).decode()}
        for path, content in contents.items()
        if content.startswith(b"\x89PNG")
    ]
