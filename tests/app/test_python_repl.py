"""What the model and the trace are told of a piece of Python."""

import os
import shutil
import stat
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import ToolMessage
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from PIL import Image

import app.python_repl
from app.agents.react import error_text
from app.python_repl import forget, make_python_repl
from app.sandbox import Limits
from telemetry.testing import Recorded
from tests.parts import missing
from tests.service import service

DRAW = """
import struct, zlib
def part(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
def png(width, height, pixels=None):
    packer, rows = zlib.compressobj(9), pixels or bytes(width + 1)
    packed = b''.join(packer.compress(rows) for _ in range(height)) + packer.flush()
    head = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\\x89PNG\\r\\n\\x1a\\n' + part(b'IHDR', head) + part(b'IDAT', packed) + part(b'IEND', b'')
def save(name, content): open(name, 'wb').write(content)
"""
PLOT = DRAW + "save('plot.png', png(1, 1)); print('drawn')"


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        missing("bubblewrap", "apt-get install bubblewrap")


async def ask(folder: Path, code: str, thread_id: str = "t-1", wall_s: float = 60) -> ToolMessage:
    call = {"name": "python_repl", "args": {"code": code}, "id": "1", "type": "tool_call"}
    graph = StateGraph(MessagesState)
    repl = make_python_repl(folder, Limits(wall_s=wall_s))
    graph.add_node("tools", ToolNode([repl], handle_tool_errors=error_text))
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


BROKEN = {
    "only a beginning": "b'\\x89PNG'",
    "nothing": "b''",
    "words": "b'not a picture'",
    "another kind": "b'GIF89a' + bytes(40)",
    "cut off": "png(100, 100)[:60]",
    "wrong inside": "png(100, 100).replace(b'IDAT', b'IDAX')",
    "without pixels": "png(0, 0)",
    "too little inside": "png(100, 100, b'0')",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_picture_hides_nothing(tmp_path: Path, name: str) -> None:
    """It is told in a sentence, and the pictures beside it are shown."""
    answer = await ask(tmp_path, f"{DRAW}save('a.png', {BROKEN[name]})\nsave('b.png', png(1, 1))\nprint('so far')")

    assert answer.status == "success"
    assert answer.content == "so far\n[image a.png is not a complete PNG: save it again]\n[image b.png]"
    assert [image["name"] for image in answer.artifact["images"]] == ["b.png"]


@pytest.mark.parametrize(
    ("width", "height", "shown"),
    [(2000, 2000, (2000, 2000)), (4000, 3000, (2000, 1500)), (3, 5000, (1, 2000)), (4000, 4000, (2000, 2000))],
)
async def test_a_large_picture_is_scaled(tmp_path: Path, width: int, height: int, shown: tuple[int, int]) -> None:
    """What is handed on has no more pixels than anybody looks at."""
    answer = await ask(tmp_path, f"{DRAW}save('a.png', png({width}, {height}))")

    with Image.open(BytesIO(b64decode(answer.artifact["images"][0]["base64"]))) as image:
        assert image.size == shown


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        ("png(11_000, 11_000)", "has more than 16,000,000 pixels: save it smaller"),
        ("png(16_000_001, 1)", "has more than 16,000,000 pixels: save it smaller"),
        ("png(1, 1) + bytes(500_000)", "is larger than 500,000 bytes: save it smaller"),
        ("png(999, 999, __import__('random').randbytes(1000)) + bytes(600_000)", "is larger than 500,000 bytes"),
    ],
)
async def test_a_picture_without_measure_is_not_opened(tmp_path: Path, draw: str, words: str) -> None:
    """One of more pixels or bytes than there is room for is told in a sentence, before it takes any memory."""
    answer = await ask(tmp_path, f"{DRAW}save('a.png', {draw})")

    assert f"[image a.png {words}" in str(answer.content)
    assert answer.artifact == {"images": []}


async def test_an_animation_is_one_picture(tmp_path: Path) -> None:
    """Of many pictures in one file, each as large as the first, only the first is shown."""
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 100, 200)]
    frames[0].save(whole := BytesIO(), "PNG", save_all=True, append_images=frames[1:])
    answer = await ask(tmp_path, f"open('a.png', 'wb').write({whole.getvalue()!r})")

    with Image.open(BytesIO(b64decode(answer.artifact["images"][0]["base64"]))) as image:
        assert (image.size, getattr(image, "n_frames", 1)) == ((8, 8), 1)


async def test_more_pictures_than_are_shown(tmp_path: Path) -> None:
    """Those beyond the fourth are told of."""
    answer = await ask(tmp_path, f"{DRAW}for n in range(6): save(f'{{n}}.png', png(1, 1))")

    assert len(answer.artifact["images"]) == 4
    assert str(answer.content).endswith("[image 3.png]\n[2 more images are not shown: make at most 4 in a call]")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"b'\xff.png'", "\ufffd.png"),
        (r"b'caf\xe9.png'", "caf\ufffd.png"),
        (r"'a\nb.png'", "a\ufffdb.png"),
        (r"'\u202egnp.png'", "\ufffdgnp.png"),
        ("'caf\u00e9.png'", "caf\u00e9.png"),
    ],
)
async def test_names_that_cannot_be_written(tmp_path: Path, name: str, shown: str) -> None:
    """A picture whose name is no UTF-8, or cannot be seen, is shown under one that can be kept and sent."""
    answer = await ask(tmp_path, f"{DRAW}save({name}, png(1, 1))")

    assert answer.content == f"[image {shown}]"
    assert [image["name"] for image in answer.artifact["images"]] == [shown]
    assert answer.model_dump_json()


async def test_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Recorded) -> None:
    """Where code cannot be isolated it is not run, and the model is told in a sentence what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = await ask(tmp_path, "1+1")

    assert answer.status == "error"
    assert answer.content == ("Error: Python cannot be run here: bubblewrap is not installed (apt install bubblewrap).")
    assert attributes(spans)["python.isolated"] is False


def test_a_service_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Recorded) -> None:
    """It starts and its agents answer; the coding agent says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    with service(tmp_path / "data") as url:
        other = httpx.post(f"{url}/chatbot/invoke", json={"message": "What is 12*34?"})
        coding = httpx.post(f"{url}/coding/invoke", json={"message": "run `6*7`"})

    assert (other.status_code, "408" in other.json()["content"]) == (200, True)
    assert (coding.status_code, "apt install bubblewrap" in coding.json()["content"]) == (200, True)


async def test_files_are_their_owners(tmp_path: Path) -> None:
    """No folder of the threads' files lets anybody else in, whatever the umask."""
    before = os.umask(0)
    try:
        await ask(tmp_path / "data", "open('note', 'w').close()")
    finally:
        os.umask(before)
    place = tmp_path / "data" / "python"

    assert {stat.S_IMODE(path.stat().st_mode) for path in (place, place / "t-1")} == {0o700}
    assert stat.S_IMODE((place / "t-1" / "note").stat().st_mode) == 0o600


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


@pytest.mark.parametrize(
    "modes",
    [{"d": 0o500}, {"d": 0}, {"d/e": 0, "d": 0o500}, {"d": 0, ".": 0o500}, {"d/e": 0o200, "d": 0o100, ".": 0}],
)
async def test_closed_folders_go_too(modes: dict[str, int]) -> None:
    """Folders that the code has closed, to their owner as well, go with the thread."""
    with ordinary_user() as folder:
        (folder / "python" / "t-1" / "d" / "e").mkdir(parents=True)
        for name in ("d/f", "d/e/g"):
            (folder / "python" / "t-1" / name).touch()
        for name, mode in modes.items():
            (folder / "python" / "t-1" / name).chmod(mode)
        await forget(folder, "t-1")

        assert list((folder / "python").iterdir()) == []


async def test_what_stays_is_told() -> None:
    """Where files cannot be removed, whoever asked for it learns that they are still there."""
    with ordinary_user() as folder:
        (folder / "python" / "t-1").mkdir(parents=True)
        (folder / "python").chmod(0o500)
        with pytest.raises(OSError, match="cannot be removed"):
            await forget(folder, "t-1")
        (folder / "python").chmod(0o700)
        await forget(folder, "t-1")

        assert list((folder / "python").iterdir()) == []


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """Yield a folder of an ordinary user, who we are meanwhile: root may remove everything."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, 65534, 65534)
        before = os.getegid(), os.getgroups()
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)
            os.setegid(before[0])
            os.setgroups(before[1])
