"""The tool that runs a model's Python code in a sandbox, outside this process."""

import logging
import os
from asyncio import CancelledError, create_subprocess_exec, to_thread
from asyncio.subprocess import PIPE
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, ToolException, tool

import telemetry
from app.files import make_private
from app.files.images import ImageError, checked_png
from app.sandbox import Limits, Outcome, Refused, run

logger = logging.getLogger(__name__)

# Follow no link, and do not wait for the writer of a pipe.
_AS_IT_IS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_CODE = 50_000
MAX_IMAGES = 4
MAX_IMAGE = 500_000
# The most that a thread may store between calls.
MAX_FOLDER = 100 * 2**20
MAX_FILES = 10_000

Artifact = dict[str, list[dict[str, str]]]
Files = Mapping[Path, os.stat_result]


def make_python_repl(data_dir: Path, limits: Limits | None = None) -> BaseTool:
    """Return the tool `python_repl`, which keeps the files of each thread in a separate folder below this one."""

    @tool(response_format="content_and_artifact")
    async def python_repl(code: str, runtime: ToolRuntime) -> tuple[str, Artifact]:
        """Run Python code and return what it prints, and the value of a last expression.

        Each call is a new process: only files in the current folder remain. There is the standard library and no
        network. A plot is shown if it is saved there as a .png file.
        """
        place = _place(data_dir, str(runtime.config.get("configurable", {}).get("thread_id", "unnamed")))
        before = await to_thread(_files, place)
        _check(code, before)
        await to_thread(make_private, data_dir / "python")
        try:
            outcome = await run(code, place, limits)
        except Refused as error:
            telemetry.get_span().set_attribute("python.isolated", value=False)
            raise ToolException(str(error)) from error
        except CancelledError:
            telemetry.get_span().set_attribute("python.killed", "cancelled")
            raise
        _tell(outcome)
        if outcome.killed or outcome.status:
            raise ToolException(_failure(outcome))
        images, words = await to_thread(_images, before, await to_thread(_files, place))
        return "\n".join([outcome.output.rstrip(), *words]).strip() or "(no output)", {"images": images}

    return python_repl


def folders(data_dir: Path) -> set[str]:
    """Return the threads with files."""
    place = data_dir / "python"
    return {folder.name for folder in place.iterdir()} if place.is_dir() else set()


async def forget(data_dir: Path, thread_id: str) -> None:
    """Remove the thread's files; raise `OSError` if some of them remain."""
    place = str(_place(data_dir, thread_id))
    # Folders may be nested too deeply for `shutil.rmtree`, and inaccessible to their own owner.
    if await _failure_of("rm", "-rf", "--", place):
        await _failure_of("chmod", "-R", "u+rwX", "--", place)
        if failure := await _failure_of("rm", "-rf", "--", place):
            logger.error("files of a deleted thread could not be removed: %s", failure)
            raise OSError("files of the thread cannot be removed")


async def _failure_of(*command: str) -> str:
    """Return the error output of the command, empty if it succeeded."""
    process = await create_subprocess_exec(*command, stderr=PIPE)
    _, complaint = await process.communicate()
    return (
        complaint.decode(errors="replace").strip() or f"exit status {process.returncode}" if process.returncode else ""
    )


def _place(data_dir: Path, thread_id: str) -> Path:
    return data_dir / "python" / thread_id


def _check(code: str, kept: Files) -> None:
    if len(code) > MAX_CODE:
        raise ToolException(f"The code is longer than {MAX_CODE:,} characters: run it in parts.")
    if sum(file.st_size for file in kept.values()) > MAX_FOLDER:
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


def _files(folder: Path) -> Files:
    """Return all files in the folder, without following links, so that nothing outside is read."""
    found: dict[Path, os.stat_result] = {}
    waiting = [folder] if folder.is_dir() else []
    while waiting and len(found) <= MAX_FILES:
        inside = _inside(waiting.pop())
        found |= inside
        waiting += [path for path, file in inside.items() if S_ISDIR(file.st_mode)]
    if len(found) > MAX_FILES:
        raise ToolException(f"The thread has more than {MAX_FILES:,} files: begin a new thread.")
    return found


def _inside(folder: Path) -> Files:
    try:
        with os.scandir(folder) as entries:
            return {Path(each.path): each.stat(follow_symlinks=False) for each in islice(entries, MAX_FILES + 1)}
    except OSError:
        raise ToolException("The thread's files cannot be read: begin a new thread.") from None


def _images(before: Files, after: Files) -> tuple[list[dict[str, str]], list[str]]:
    """Return the new images that can be shown, and a line about each image, shown or not."""
    made = sorted(
        path for path, file in after.items() if _is_image(path, file) and not _is_same(before.get(path), file)
    )
    images, words = [], []
    for path in made[:MAX_IMAGES]:
        name = _readable(path.name)
        try:
            content = checked_png(_content(path), MAX_IMAGE)
        except ImageError as error:
            words.append(f"[image {name} {error}]")
        else:
            images.append({"name": name, "type": "image/png", "base64": b64encode(content).decode()})
            words.append(f"[image {name}]")
    if len(made) > MAX_IMAGES:
        words.append(f"[{len(made) - MAX_IMAGES} more images are not shown: make at most {MAX_IMAGES} in a call]")
    return images, words


def _readable(name: str) -> str:
    """Return the name with invisible and non-UTF-8 characters replaced."""
    name = os.fsencode(name).decode(errors="replace")
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def _content(path: Path) -> bytes:
    """Return the content of the file, which running code may have replaced in the meantime."""
    with suppress(OSError), os.fdopen(os.open(path, _AS_IT_IS), "rb") as file:
        return file.read(MAX_IMAGE + 1) if S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    return b""


def _is_image(path: Path, file: os.stat_result) -> bool:
    return path.suffix == ".png" and S_ISREG(file.st_mode)


def _is_same(before: os.stat_result | None, after: os.stat_result) -> bool:
    return before is not None and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
