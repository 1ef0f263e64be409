"""What the model and the trace are told of a piece of Python."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import app.python_repl
from app.agents.react import in_words
from app.python_repl import forget, make_python_repl
from app.sandbox import Limits
from telemetry.testing import Recorded

PLOT = """
import struct, zlib
def part(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
head = struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0)
png = part(b'IHDR', head) + part(b'IDAT', zlib.compress(bytes(2))) + part(b'IEND', b'')
open('plot.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + png)
print('drawn')
"""


async def ask(folder: Path, code: str, thread_id: str = "t-1", wall_s: float = 60) -> ToolMessage:
    call = {"name": "python_repl", "args": {"code": code}, "id": "1", "type": "tool_call"}
    graph = StateGraph(MessagesState)
    repl = make_python_repl(folder, Limits(wall_s=wall_s))
    graph.add_node("tools", ToolNode([repl], handle_tool_errors=in_words))
    graph.set_entry_point("tools")
    said: Any = {"messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]}
    state = await graph.compile().ainvoke(said, {"configurable": {"thread_id": thread_id}})
    return state["messages"][-1]


def attributes(spans: Recorded) -> dict[str, Any]:
    (span,) = [span for span in spans.settled() if span.name == "python_repl"]
    return dict(span.attributes or {})


async def test_the_span_says_what_was_used(tmp_path: Path, spans: Recorded) -> None:
    """Exit status, CPU seconds, peak memory and isolation stand on the tool's span, beside what every tool has."""
    answer = await ask(tmp_path, "print('hello')\n6*7")

    assert (answer.content, answer.status) == ("hello\n42", "success")
    said = attributes(spans)
    assert (said["python.isolated"], said["python.exit_status"], said["tool.success"]) == (True, 0, True)
    assert 0 < said["python.cpu_s"] < 5
    assert said["python.peak_bytes"] > 1_000_000
    assert "python.killed" not in said


async def test_why_it_was_killed(tmp_path: Path, spans: Recorded) -> None:
    """A kill is the tool's failure, told to the model in words and to the trace by its reason."""
    answer = await ask(tmp_path, "import time; print('so far', flush=True); time.sleep(60)", wall_s=8)

    assert (answer.content, answer.status) == ("Error: Stopped, wall time.\nso far", "error")
    said = attributes(spans)
    assert (said["python.killed"], said["tool.success"]) == ("wall time", False)


async def test_a_failure_shows_its_end(tmp_path: Path) -> None:
    """An exception is told with its line, without the service's paths."""
    answer = await ask(tmp_path, "x = 1\n1/0")

    assert answer.status == "error"
    assert str(answer.content).startswith("Error: Exit status 1.\nTraceback")
    assert str(answer.content).endswith('File "<code>", line 2, in <module>\nZeroDivisionError: division by zero')
    assert str(tmp_path) not in str(answer.content)


async def test_each_thread_has_its_files(tmp_path: Path) -> None:
    """What a thread leaves in its folder is there in its next call, and in no other thread's."""
    await ask(tmp_path, "open('note', 'w').write('x')")

    assert (await ask(tmp_path, "open('note').read()")).content == "'x'"
    assert (await ask(tmp_path, "open('note').read()", thread_id="t-2")).status == "error"


async def test_a_plot_comes_back(tmp_path: Path) -> None:
    """A picture that a call made is its artifact, once; a link to something else is not followed."""
    answer = await ask(tmp_path, PLOT)
    again = await ask(tmp_path, "import os; os.symlink('/etc/hostname', 'link.png')")

    assert answer.content == "drawn\n[image plot.png]"
    assert [(image["name"], image["type"]) for image in answer.artifact["images"]] == [("plot.png", "image/png")]
    assert again.artifact == {"images": []}


@pytest.mark.parametrize(("limit", "words"), [
    ("MAX_CODE", "run it in parts"),
    ("MAX_FOLDER", "begin a new thread"),
    ("MAX_FILES", "begin a new thread"),
])  # fmt: skip
async def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, words: str) -> None:
    """Code or files without measure are refused in a sentence that says what to do."""
    await ask(tmp_path, "for n in range(3): open(f'note{n}', 'w').write('x')")
    monkeypatch.setattr(app.python_repl, limit, 2)

    assert words in str((await ask(tmp_path, "1+1")).content)


async def test_files_that_cannot_be_measured(tmp_path: Path) -> None:
    """Folders deeper than a path can be fail in words, without the service's own path; they can be removed."""
    deep = "import os\nfor n in range(1100): os.mkdir('deep'); os.chdir('deep')"
    answer = await ask(tmp_path, deep)
    await ask(tmp_path, "1+1", thread_id="t-2")
    await forget(tmp_path, "t-1")

    said = "Error: The thread's files cannot be read: begin a new thread."
    assert (answer.content, answer.status) == (said, "error")
    assert [place.name for place in (tmp_path / "python").iterdir()] == ["t-2"]
