"""Files: what is taken, what is refused and leaves nothing, who can reach them."""

import hashlib
import os
import socket
import sys
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from secrets import token_bytes
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.files.content import Refusal, check_name
from telemetry.testing import Recorded
from tests.processes import free_port, start, until
from tests.service import service, user_token

SECRET = "a secret of more than thirty-two characters"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
ELF = b"\x7fELF\x02\x01\x01" + bytes(64)
THREAD = "langfuse.trace.metadata.thread"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[str]:
    with service(folder, MAX_FILE_BYTES=3 * MEGABYTE) as address:
        yield address


@pytest.fixture
def url(shared: str) -> Iterator[str]:
    """A service that has no file, before and after."""
    yield shared
    for file in listed(shared):
        httpx.delete(f"{shared}/files/{file['file_id']}")


@pytest.fixture
def traced(spans: Recorded, tmp_path: Path) -> Iterator[str]:
    with service(tmp_path) as address:
        yield address


def send(url: str, name: str, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/files", params={"thread_id": "t-1"}, files={"file": (name, content)}, headers=headers)


def listed(url: str) -> list[dict[str, Any]]:
    return httpx.get(f"{url}/files", params={"thread_id": "t-1"}).json().get("files", [])


def kept(folder: Path) -> list[Path]:
    return list((folder / "files").iterdir())


def token(user: str) -> str:
    return f"Bearer {user_token(user, SECRET)}"


def test_a_file_comes_back_as_it_was_sent(url: str, folder: Path) -> None:
    """What was uploaded is listed with size, type and hash, downloaded byte by byte, and gone once deleted."""
    content = "Grüße\n".encode() * 50_000
    sent = send(url, "Größe 🙂.txt", content).json()
    response = httpx.get(f"{url}/files/{sent['file_id']}")

    assert (sent["name"], sent["size"], sent["type"]) == ("Größe 🙂.txt", len(content), "text/plain")
    assert sent["sha256"] == hashlib.sha256(content).hexdigest()
    assert [file["file_id"] for file in listed(url)] == [sent["file_id"]]
    assert response.content == content
    assert response.headers["content-disposition"].startswith("attachment;")
    assert response.headers["x-content-type-options"] == "nosniff"

    assert httpx.delete(f"{url}/files/{sent['file_id']}").status_code == 200
    assert httpx.get(f"{url}/files/{sent['file_id']}").status_code == 404
    assert (listed(url), kept(folder)) == ([], [])


def test_the_content_tells_the_type(url: str) -> None:
    """A picture that calls itself a text is a picture."""
    assert send(url, "notes.txt", PNG).json()["type"] == "image/png"


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("../../etc/passwd", b"x", 422, "must not be a path"),
        ("/etc/passwd", b"x", 422, "must not be a path"),
        ("..", b"x", 422, "has no name"),
        ("..\\boot.ini", b"x", 422, "must not be a path"),
        ("\uff0fetc\uff0fpasswd", b"x", 422, "must not be a path"),
        ("\u2024\u2024", b"x", 422, "has no name"),
        ("invoice\u202etxt.exe", b"x", 422, "invisible"),
        ("x" * 300, b"x", 422, "longer than 255 bytes"),
        ("nothing.txt", b"", 422, "is empty"),
        ("picture.png", ELF, 415, "application/x-executable"),
        ("page.txt", b"MZ" + bytes(64), 415, "application/x-msdownload"),
        ("noise.txt", b"\x00\x01\x02\x03" * 16, 415, "application/octet-stream"),
        ("large.txt", b"x" * (3 * MEGABYTE + 1), 413, "larger than 3,145,728 bytes"),
    ],
    ids=count(),
)
def test_a_bad_file_is_refused(url: str, folder: Path, name: str, content: bytes, status: int, words: str) -> None:
    """A file that cannot be taken is refused in a sentence, and leaves nothing behind."""
    response = send(url, name, content)

    assert (response.status_code, words in response.json()["detail"]) == (status, True), response.text
    assert (listed(url), kept(folder)) == ([], [])


def test_a_name_with_a_zero_byte_is_refused(url: str, folder: Path) -> None:
    """A NUL in a name, as no ordinary client sends it, is refused too."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\x00b"\r\n\r\nx\r\n--b--\r\n'
    response = raw_body(url, body)

    assert response.status_code == 422
    assert kept(folder) == []


def raw_body(url: str, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return httpx.post(f"{url}/files", params={"thread_id": "t-1"}, content=body, headers=headers)


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhello'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "There is no file"),
        (b"hello", "not well-formed"),
        (b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--b--\r\n', "There is no file"),
        (PART + b"\r\n" + PART + b"\r\n--b--\r\n", "more than one file"),
        (PART, "was cut off"),
        (b'--b\r\nContent-Disposition: form-data; filename="\xff"\r\n\r\nx\r\n--b--\r\n', "not in UTF-8"),
    ],
)
def test_a_bad_form_is_refused(url: str, folder: Path, body: bytes, words: str) -> None:
    """A body that holds no whole file is refused in a sentence, and leaves nothing behind."""
    response = raw_body(url, body)

    assert (response.status_code // 100, words in response.json()["detail"]) == (4, True), response.text
    assert (listed(url), kept(folder)) == ([], [])


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"])
def test_another_kind_of_body_is_refused(url: str, kind: str) -> None:
    """A body that is no form is told how to send a file."""
    headers = {"Content-Type": kind}
    response = httpx.post(f"{url}/files", params={"thread_id": "t-1"}, content=b"hello", headers=headers)

    assert (response.status_code, "multipart/form-data" in response.json()["detail"]) == (422, True)


@given(st.binary(max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_form_breaks_the_service(url: str, noise: bytes) -> None:
    """Whatever stands in a form, the answer is no failure of the service."""
    assert raw_body(url, PART[: len(noise)] + noise).status_code < 500


@given(st.text(max_size=300))
@example("a/b")
@example("\u2215")
@example("\ud800")
@example("0\u16800")
def test_a_taken_name_is_no_path(name: str) -> None:
    """Of any text, what is taken as a name has no separator in any of its forms, nothing unseen, and fits anywhere."""
    try:
        taken = check_name(name)
    except (Refusal, UnicodeEncodeError):
        return
    assert Path(taken).name == taken
    # Python calls no space printable save the plain one; macOS puts others into the names of screenshots.
    assert all(each.isprintable() or each in "\u200d\u200c" or unicodedata.category(each) == "Zs" for each in taken)
    assert 0 < len(taken.encode()) <= 255


def test_two_uploads_at_once(traced: str) -> None:
    """Files of the same name sent at the same time are both kept, each with its own bytes."""
    contents = [bytes([65 + number]) * MEGABYTE for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda content: send(traced, "same.txt", content).json(), contents))

    assert len({file["file_id"] for file in sent}) == len(listed(traced)) == 4
    for file, content in zip(sent, contents, strict=True):
        assert httpx.get(f"{traced}/files/{file['file_id']}").content == content


def test_an_upload_that_breaks_off(url: str, folder: Path) -> None:
    """A client that leaves in the middle leaves nothing behind."""
    with connection(url) as wire:
        wire.sendall(opening(MEGABYTE) + b"x" * 500_000)
        until(lambda: kept(folder))
    until(lambda: not kept(folder))

    assert listed(url) == []


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=60) as wire:
        yield wire


def opening(length: int) -> bytes:
    head = (
        "POST /files?thread_id=t-1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    return head.encode() + PART


def test_a_service_killed_in_the_middle(tmp_path: Path) -> None:
    """After a SIGKILL during an upload the file is not there, and what is left of it goes once it is old."""
    with own_process(tmp_path) as (url, process), connection(url) as wire:
        wire.sendall(opening(4 * MEGABYTE) + b"x" * 2 * MEGABYTE)
        until(lambda: any(path.stat().st_size for path in kept(tmp_path)))
        process.kill()
        process.wait(60)
    [rest] = kept(tmp_path)
    os.utime(rest, (0, 0))
    with own_process(tmp_path) as (url, _):
        assert (listed(url), kept(tmp_path)) == ([], [])


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """Somebody else's old file in the store outlives a start; what an upload left behind does not."""
    store = tmp_path / "store"
    store.mkdir()
    theirs, left = store / "report.pdf", store / uuid4().hex
    for path in (theirs, left):
        path.touch()
        os.utime(path, (0, 0))
    with service(tmp_path, FILES_URL=f"file://{store}"):
        assert list(store.iterdir()) == [theirs]


@contextmanager
def own_process(folder: Path, *before: str) -> Iterator[tuple[str, Any]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [*before, sys.executable, "-m", "app"]
    with start(argv, {"PORT": str(port), "DATA_DIR": str(folder)}, f"{url}/health") as process:
        yield url, process.popen


def test_no_room(tmp_path: Path) -> None:
    """A store that takes no more is a 507 in a sentence; nothing of the file is left, and smaller ones still go in."""
    # No file of the process may grow beyond 2 MB: what a full disk does, without one.
    with own_process(tmp_path, "prlimit", f"--fsize={2 * MEGABYTE}") as (url, _):
        response = send(url, "large.txt", b"x" * 4 * MEGABYTE)
        small = send(url, "small.txt", b"x" * MEGABYTE)

        assert (response.status_code, "no space" in response.json()["detail"]) == (507, True), response.text
        assert small.status_code == 201
        assert [file["name"] for file in listed(url)] == ["small.txt"]
        assert len(kept(tmp_path)) == 1


def test_files_belong_to_their_user(spans: Recorded, tmp_path: Path) -> None:
    """Nobody else can list, read, remove or add to a user's files, whatever they put into the request."""
    with service(tmp_path, AUTH_SECRET=SECRET) as url:
        mine = send(url, "mine.txt", b"mine", Authorization=token("ada")).json()["file_id"]
        theirs = {"Authorization": token("bob")}

        assert send(url, "theirs.txt", b"theirs", **theirs).status_code == 404
        for query in ({}, {"user_id": "ada"}):
            for method, path in (("GET", f"/files/{mine}"), ("DELETE", f"/files/{mine}"), ("GET", "/files")):
                parameters = {"thread_id": "t-1", **query}
                assert httpx.request(method, url + path, params=parameters, headers=theirs).status_code == 404
            assert httpx.get(f"{url}/files/{mine}", headers={**theirs, "X-User-Id": "ada"}).status_code == 404
        assert httpx.get(f"{url}/files/{mine}", headers={"Authorization": token("ada")}).content == b"mine"


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
@example("../service.db")
@example("..%2fservice.db")
@example("%2e%2e/service.db")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_id_reaches_another_file(url: str, file_id: str) -> None:
    """An id that was never given out finds nothing, whatever it looks like."""
    try:
        address = httpx.URL(f"{url}/files/{file_id}")
    except httpx.InvalidURL:
        return
    response = httpx.get(address, params={"thread_id": "t-1"})
    assert response.status_code in (404, 405, 307) or response.json().get("files") == []


def test_each_operation_is_a_span(traced: str, spans: Recorded) -> None:
    """Upload, list, download and delete are spans with thread, user, name, size and type; answers name the trace."""
    who = {"X-User-Id": "ada"}
    sent = send(traced, "notes.txt", b"hello", **who)
    file = f"{traced}/files/{sent.json()['file_id']}"
    answers = [sent, httpx.get(f"{traced}/files?thread_id=t-1", headers=who), httpx.get(file, headers=who)]
    answers.append(httpx.delete(file, headers=who))

    tree = spans.tree(["file.name", "file.size", "file.type", "session.id", "user.id", THREAD])
    about = f"file.name=notes.txt file.size=5 file.type=text/plain user.id=ada {THREAD}=t-1"
    for name in ("upload file", "download file", "delete file"):
        assert f"  {name} {about}" in tree
    assert f"  list files file.size=5 user.id=ada {THREAD}=t-1" in tree
    ids = [answer.headers.get("x-trace-id") or answer.json()["trace_id"] for answer in answers]
    assert ids == [answer.headers["traceresponse"].split("-")[1] for answer in answers]


def test_the_answer_names_the_latest_run(traced: str) -> None:
    """Once there was a turn on the thread, a file's answer names its run."""
    run_id = httpx.post(f"{traced}/invoke", json={"message": "Hello", "thread_id": "t-1"}).json()["run_id"]

    assert send(traced, "notes.txt", b"hello").json()["run_id"] == run_id


def test_names_can_be_kept_out_of_traces(spans: Recorded, tmp_path: Path) -> None:
    """With HASH_FILE_NAMES a trace tells files apart and does not say what they are called."""
    with service(tmp_path, HASH_FILE_NAMES=True) as url:
        send(url, "my diagnosis.txt", b"hello")

    assert "diagnosis" not in str([dict(span.attributes or {}) for span in spans.settled()])
    assert "file.name=" in spans.tree(["file.name"])


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    """A file much larger than what the service may use of memory streams in and out."""
    stream_through(tmp_path, 64 * MEGABYTE)


def stream_through(folder: Path, size: int) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {"PORT": str(port), "DATA_DIR": str(folder), "MAX_FILE_BYTES": str(size)}
    with start([sys.executable, "-m", "app"], env, f"{url}/health") as process:
        send(url, "small.txt", b"hello")
        before = memory(process.popen.pid)
        body = Large(size)
        response = httpx.post(
            f"{url}/files", params={"thread_id": "t-1"}, content=body, headers=body.headers, timeout=300
        )
        assert response.json()["size"] == size, response.text
        with httpx.stream("GET", f"{url}/files/{response.json()['file_id']}", timeout=300) as download:
            assert sum(map(len, download.iter_raw())) == size
        assert memory(process.popen.pid) - before < 40 * MEGABYTE


class Large:
    """A form with a large text file, never whole in memory."""

    def __init__(self, size: int) -> None:
        self._head, self._tail, self._size = PART.removesuffix(b"hello"), b"\r\n--b--\r\n", size
        length = len(self._head) + size + len(self._tail)
        self.headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(length)}

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for _ in range(self._size // MEGABYTE):
            yield b"x" * MEGABYTE
        yield self._tail


def memory(pid: int) -> int:
    """The most memory that the process has ever held."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": token_bytes(8).hex(),
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"http://127.0.0.1:{server.port}/files").raise_for_status()
    try:
        yield "s3://files/agent"
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


def test_files_in_a_bucket(bucket: str, spans: Recorded, tmp_path: Path) -> None:
    """In an S3-compatible store files come, are read and go as on disk; a refused one is no object."""
    with service(tmp_path, FILES_URL=bucket, MAX_FILE_BYTES=20 * MEGABYTE) as url:
        content = token_bytes(MEGABYTE).hex().encode() * 9
        sent = send(url, "large.txt", content).json()
        assert send(url, "too-large.txt", b"x" * 21 * MEGABYTE).status_code == 413
        assert send(url, "picture.png", ELF).status_code == 415

        assert sent["size"] == len(content)
        assert httpx.get(f"{url}/files/{sent['file_id']}").content == content
        assert [file["file_id"] for file in listed(url)] == [sent["file_id"]]
        assert objects(bucket) == [sent["file_id"]]
        assert httpx.delete(f"{url}/files/{sent['file_id']}").status_code == 200
        assert objects(bucket) == []


def objects(bucket: str) -> list[str]:
    import fsspec

    files, root = fsspec.core.url_to_fs(bucket)
    files.invalidate_cache()
    return [path.rpartition("/")[2] for path in files.find(root)]
