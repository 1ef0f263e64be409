"""Files of spans on their way to a real viewer, from real processes, whatever happens in between."""

import hashlib
import json
import os
import signal
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from textwrap import dedent
from typing import Any

import httpx
import pytest
from langfuse.api import MediaContentType
from langfuse.media import LangfuseMedia
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

import telemetry
from telemetry.export import otlp
from telemetry.export.otlp import EncodedSpan
from telemetry.export.stages import build_stages, prepare
from telemetry.settings import Settings
from telemetry.testing import recording
from telemetry.testing.receiver import Receiver
from telemetry.viewer.app import create_app
from telemetry.viewer.settings import ViewerSettings
from tests import fork_server
from tests.processes import ROOT, bare, run_code, serve, until

PNG = b"\x89PNG\r\n\x1a\n"
# A chat about a picture: two turns, and in the second one its history.
CHAT = dedent("""
    import sys, telemetry
    from base64 import b64encode
    from pathlib import Path
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langgraph.graph import START, MessagesState, StateGraph

    telemetry.configure("pictures")
    uri = "data:image/png;base64," + b64encode(Path(sys.argv[1]).read_bytes()).decode()
    model = GenericFakeChatModel(messages=iter([AIMessage("A cat"), AIMessage("Still a cat")]))
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "answer")
    agent = graph.compile(name="eyes")
    parts = [{"type": "text", "text": "What"}, {"type": "image_url", "image_url": {"url": uri}},
             {"type": "text", "text": "is it?"}]
    first = agent.invoke({"messages": [{"role": "user", "content": parts}]})["messages"]
    agent.invoke({"messages": [*first, ("user", "Sure?")]})
""")
END = "telemetry.shutdown()\n"
# What is written is on disk: the process ends as if it had crashed.
CRASH = dedent("""
    import os, signal, time
    from telemetry import pipeline
    from telemetry.delivery.store import MEDIA
    from telemetry.delivery.writer import SpoolProcessor
    writer = pipeline.get(SpoolProcessor).writer
    writer.write()
    while not writer.spool.file.rows_of(MEDIA) == 3:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
""")
# It does what it finds to do, until it is asked to end.
NEXT = dedent("""
    import signal, sys, telemetry, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        telemetry.configure("next")
        print("ready", flush=True)
        while True:
            time.sleep(0.02)
    finally:
        telemetry.shutdown()
""")
# One span with one file, whatever it is.
SPAN = dedent("""
    import sys, telemetry
    telemetry.configure("files")
    with telemetry.span("look") as span:
        span.set_attribute(sys.argv[2], sys.argv[1])
    telemetry.shutdown()
    print(telemetry.stats())
""")


class Door:
    """A viewer behind a door that counts what it is asked by method, and answers some of it itself."""

    def __init__(self, app: ASGIApp, keys: tuple[str, str]) -> None:
        self.url = ""
        self.keys = keys
        self.answers: dict[str, int] = {}
        self.asked: Counter[str] = Counter()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope.get("method", "")
        if not scope.get("path", "").startswith("/api/public/media"):
            return await self._app(scope, receive, send)
        self.asked[method] += 1
        if status := self.answers.get(method):
            return await Response("out of order", status)(scope, receive, send)
        return await self._app(scope, receive, send)

    @property
    def env(self) -> dict[str, str]:
        """The settings of a program that sends here."""
        public, secret = self.keys
        return {"LANGFUSE_HOST": self.url, "LANGFUSE_PUBLIC_KEY": public, "LANGFUSE_SECRET_KEY": secret}

    def get(self, path: str, **query: Any) -> Any:
        """What it answers."""
        return httpx.get(self.url + path, params=query, auth=self.keys, timeout=30).raise_for_status().json()

    def observations(self) -> list[dict[str, Any]]:
        """All that it has."""
        return self.get("/api/public/v2/observations", limit=100, fields="core,basic,io,metadata")["data"]

    def has(self, media_id: str) -> bool:
        """Whether it has a file."""
        return httpx.get(f"{self.url}/api/public/media/{media_id}", auth=self.keys, timeout=30).is_success

    def bytes_of(self, media_id: str) -> bytes:
        """The content of a file."""
        return httpx.get(self.get(f"/api/public/media/{media_id}")["url"]).raise_for_status().content


@contextmanager
def door(folder: Path) -> Iterator[Door]:
    settings = ViewerSettings(db=folder / "viewer.db", public_key=f"pk-lf-{token_hex(4)}")
    opened = Door(create_app(settings), (settings.public_key, settings.secret_key.get_secret_value()))
    with serve(opened) as opened.url:
        yield opened


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path) as opened:
        yield opened


@pytest.fixture
def run(viewer: Door, tmp_path: Path) -> Any:
    def run(program: str, *arguments: str, status: int = 0, **env: str) -> str:
        spool = {"TELEMETRY_SPOOL_DIR": str(tmp_path / "spool")}
        done = run_code(program, *arguments, env={**viewer.env, **spool, **env})
        assert done.returncode == status, done.stderr
        return done.stdout

    return run


@contextmanager
def next_process(viewer: Door, folder: Path) -> Iterator[None]:
    """A process that takes over the spool of one that is gone, for as long as the block runs."""
    env = {**bare(), **viewer.env, "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    log = folder / "log"
    process = fork_server.run_code(NEXT, [], env, ROOT, log, log)
    try:
        until(lambda: log.exists() and "ready" in log.read_text())
        yield
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()


def picture(folder: Path, size: int = 300_000) -> tuple[Path, bytes]:
    """A file that begins like a picture, and its content."""
    content = PNG + os.urandom(size)
    path = folder / "picture.png"
    path.write_bytes(content)
    return path, content


def reference(content: bytes) -> str:
    """What the SDK would put in place of it."""
    media = LangfuseMedia(content_bytes=content, content_type=MediaContentType.IMAGE_PNG)
    return (media._reference_string or "").replace("source=bytes", "source=base64_data_uri")


def media_id(content: bytes) -> str:
    return b64encode(hashlib.sha256(content).digest()).decode()[:22].replace("+", "-").replace("/", "_")


def uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
@pytest.mark.parametrize("size", [2_000, 3_000_000])
def test_a_picture_is_uploaded_once(viewer: Door, run: Any, tmp_path: Path, recorder: str, size: int) -> None:
    """Each observation that shows it refers to it, with all that was said around it; its bytes are there, sent once."""
    path, content = picture(tmp_path, size)
    run(CHAT + END, str(path), TELEMETRY_LANGCHAIN=recorder)
    until(lambda: viewer.asked["PATCH"])

    url = reference(content)
    said = [{"type": "text", "text": "What"}, {"type": "image_url", "image_url": {"url": url}}]
    question = {"role": "user", "content": [*said, {"type": "text", "text": "is it?"}]}
    models = [json.loads(each["input"]) for each in viewer.observations() if each["type"] == "GENERATION"]
    follow_up = [question, {"role": "assistant", "content": "A cat"}, {"role": "user", "content": "Sure?"}]
    assert models == [follow_up, [question]]
    assert viewer.bytes_of(media_id(content)) == content
    assert (viewer.asked["POST"], viewer.asked["PUT"], viewer.asked["PATCH"]) == (3, 1, 1)


def test_an_upload_survives_a_sigkill(viewer: Door, run: Any, tmp_path: Path) -> None:
    """A file that waits when its process is killed is uploaded by the next process on the folder."""
    path, content = picture(tmp_path)
    viewer.answers = {"POST": 503}
    run(CHAT + CRASH, str(path), status=-signal.SIGKILL)
    assert viewer.asked["PUT"] == 0

    viewer.answers = {}
    with next_process(viewer, tmp_path):
        until(lambda: viewer.asked["PATCH"])
        until(lambda: viewer.asked["POST"] >= 3)
        assert viewer.bytes_of(media_id(content)) == content
        assert viewer.asked["PUT"] == 1
    assert list((tmp_path / "spool").glob("*.db")) == []


@pytest.mark.parametrize(("method", "status"), [("POST", 503), ("PUT", 403), ("PATCH", 500)])
def test_a_broken_store_keeps_no_span_back(viewer: Door, run: Any, tmp_path: Path, method: str, status: int) -> None:
    """Spans arrive while files cannot be uploaded; the files wait in the spool, and go once it works again."""
    path, content = picture(tmp_path)
    viewer.answers = {method: status}
    run(CHAT + END, str(path))
    until(lambda: len(viewer.observations()) == 6)
    assert len(list((tmp_path / "spool").glob("*.db"))) == 1

    viewer.answers = {}
    with next_process(viewer, tmp_path):
        until(lambda: viewer.has(media_id(content)))
    assert viewer.bytes_of(media_id(content)) == content


def test_a_refused_file_is_counted_and_gone(viewer: Door, run: Any) -> None:
    """What the backend will never take is not sent for ever."""
    viewer.answers = {"POST": 413}
    figures = run(SPAN, uri(PNG + os.urandom(500)), "input.value")
    assert "'media': {'waiting': 0, 'delivered': 0, 'refused': 1" in figures


@pytest.mark.parametrize("off", [
    {"TELEMETRY_MEDIA": "false"},
    {"TELEMETRY_CONTENT": "metadata-only"},
    {"OPENINFERENCE_HIDE_INPUT_IMAGES": "true"},
    {"OPENINFERENCE_HIDE_INPUTS": "true"},
    {"TELEMETRY_SHAPE": "openinference"},
])  # fmt: skip
def test_what_may_not_leave_stays(viewer: Door, run: Any, tmp_path: Path, off: Mapping[str, str]) -> None:
    """With content, inputs or files switched off nothing is uploaded, and no reference says that something was."""
    path, content = picture(tmp_path)
    run(CHAT + END, str(path), **off)
    until(lambda: len(viewer.observations()) == 6)
    assert viewer.asked == Counter()
    everything = str(viewer.observations())
    assert "langfuseMedia" not in everything
    assert b64encode(content).decode()[200:300] not in everything


def test_another_backend_gets_a_note(run: Any, tmp_path: Path) -> None:
    """Type, size and hash of a file stand in the span, however large it is."""
    path, content = picture(tmp_path, 3_000_000)
    with Receiver() as receiver:
        run(CHAT + END, str(path), OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        until(lambda: len(receiver.spans) == 6)
        texts = str([dict(span.attributes) for span in receiver.spans])
    note = f"[image/png, {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}]"
    assert note in texts
    assert "langfuseMedia" not in texts
    assert "is it?" in texts


@pytest.mark.parametrize(("part", "shown"), [
    ({"type": "image", "base64": "…", "mime_type": "image/png"}, [{"type": "image_url", "image_url": {"url": "…"}}]),
    ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "…"}}, [
        {"type": "image_url", "image_url": {"url": "…"}},
    ]),
    ({"type": "audio", "base64": "…", "mime_type": "audio/wav"}, [
        {"type": "input_audio", "input_audio": {"data": "…"}},
    ]),
    ({"type": "file", "file": {"filename": "a.pdf", "file_data": "…"}}, [{"type": "text", "text": "a.pdf"}, "…"]),
    ({"type": "input_audio", "input_audio": {"data": "…", "format": "wav"}}, None),
])  # fmt: skip
def test_files_are_parts_that_langfuse_draws(part: dict[str, Any], shown: list[Any] | None) -> None:
    """Whatever library wrote the message, the reference is in a part that is drawn in its place."""
    begins = {"image": PNG, "audio": b"RIFF\x00\x00\x00\x00WAVEfmt ", "input_audio": b"RIFF\x00\x00\x00\x00WAVEfmt "}
    content = begins.get(str(part["type"]), b"%PDF-1.7") + os.urandom(2_000)
    encoded = b64encode(content).decode()
    message = json.dumps([{"role": "user", "content": [json.loads(json.dumps(part).replace("\\u2026", encoded))]}])
    keys = {"langfuse_host": "http://127.0.0.1:9", "public_key": "pk-lf-1", "secret_key": "sk-lf-1"}
    settings = Settings.model_validate(keys)
    with recording(settings) as spans:
        with telemetry.span("look") as span:
            span.set_attributes({"input.value": message, "openinference.span.kind": "LLM"})
        (finished,) = spans.settled()
    body = prepare(finished, build_stages(settings))
    assert isinstance(body, EncodedSpan)
    (attachment,) = body.attachments
    assert (attachment.field, attachment.media.content) == ("input", content)
    (sent,) = otlp.decode(body, "application/x-protobuf")
    (found,) = json.loads(sent.attributes["langfuse.observation.input"])
    expected = json.dumps([part] if shown is None else shown).replace("\\u2026", attachment.media.reference)
    assert found["content"] == json.loads(expected)


SECRET = b"ghp_" + b"a1B2c3D4e5" * 4


@pytest.mark.parametrize(("kind", "content", "leaves"), [
    ("image/png", PNG + b"\0tEXtComment\0" + SECRET + b"\0" + b"\xff" * 90, False),
    ("image/png", PNG + SECRET.decode().encode("utf-16-le") + b"\xff" * 90, False),
    ("text/plain", b"Nothing to hide. " * 20, True),
    ("text/plain", b"password: hunter2hunter2. " * 20, False),
    ("text/plain", ("Nothing to hide. " * 20).encode("utf-16"), False),
    ("application/pdf", b"%PDF-1.7 " + b"\xff\x80" * 90, True),
    ("audio/x-wav", b"RIFF\x00\x00\x00\x00WAVEfmt " + b"\xff\x80" * 90, True),
    ("application/zip", b"PK\x03\x04" + b"\xff\x80" * 90, False),
    ("application/x-unknown", b"\xff\x80" * 90, False),
])  # fmt: skip
def test_redaction_decides_what_leaves(viewer: Door, run: Any, kind: str, content: bytes, leaves: bool) -> None:
    """A file in which a secret can be read is not uploaded, and neither is one in which nobody can look for it."""
    run(SPAN, uri(content, kind), "output.value")
    until(lambda: len(viewer.observations()) == 1)
    (output,) = [each["output"] for each in viewer.observations()]
    assert ("langfuseMedia" in output, "bytes, sha256" in output) == (leaves, not leaves)
    assert viewer.asked["PUT"] == leaves
    if leaves:
        assert viewer.bytes_of(media_id(content)) == content


def test_files_take_no_space_from_spans(viewer: Door, run: Any) -> None:
    """During an outage the oldest files are dropped beyond their share of the spool, and counted; spans stay."""
    program = dedent("""
        import os, sys, telemetry
        from base64 import b64encode
        telemetry.configure("files")
        for number in range(20):
            with telemetry.span(f"look {number}") as span:
                content = bytes.fromhex(sys.argv[1]) + os.urandom(40_000)
                span.set_attribute("input.value", "data:image/png;base64," + b64encode(content).decode())
        from telemetry import pipeline
        from telemetry.delivery.store import MEDIA
        from telemetry.delivery.writer import SpoolProcessor
        writer = pipeline.get(SpoolProcessor).writer
        writer.write()
        print(writer.spool.file.size_of(MEDIA), telemetry.stats()["process"]["dropped"])
        telemetry.shutdown()
    """)
    viewer.answers = {"POST": 503}
    printed = run(program, PNG.hex(), TELEMETRY_SPOOL_MAX_BYTES="1000000")
    size, _, dropped = printed.splitlines()[-1].partition(" ")
    assert int(size) <= 250_000
    assert dropped.strip() == "{'too many bytes of files': 14}"
    until(lambda: len(viewer.observations()) == 20)


@pytest.mark.parametrize("kept", [True, False])
def test_files_of_a_dropped_trace_are_not_uploaded(viewer: Door, run: Any, kept: bool) -> None:
    """With tail sampling a file waits with its trace for the decision."""
    program = dedent("""
        import sys, telemetry
        telemetry.configure("files")
        for keep in (False, sys.argv[2] == "True"):
            with telemetry.span("look") as span:
                span.set_attribute("input.value", sys.argv[1])
                trace_id = telemetry.current_trace().trace_id
            telemetry.keep_trace(trace_id, keep)
        telemetry.flush()
        telemetry.shutdown()
    """)
    content = PNG + os.urandom(2_000)
    run(program, uri(content), str(kept), TELEMETRY_KEEP_RATE="0")
    assert (viewer.asked["POST"], viewer.asked["PUT"]) == (kept, kept)
    assert len(viewer.observations()) == kept
