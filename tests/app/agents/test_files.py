"""The agent reads the files of its own thread."""

import json
import wave
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import docx
import openpyxl
import pptx
import pytest
from PIL import Image
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from app.client import AgentClient
from telemetry.testing import Recorded
from tests.openai_server import OpenAIServer, openai_server
from tests.service import service

NO_IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def client(spans: Recorded, tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path) as url:
        yield AgentClient(url, "chatbot", timeout=90, user_id="ada")


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    with openai_server() as server:
        yield server


@pytest.fixture(params=["gpt-4o"])
def seeing(
    request: pytest.FixtureRequest,
    spans: Recorded,
    provider: OpenAIServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AgentClient]:
    """A client of a service with a model that takes more than text."""
    monkeypatch.setenv("OPENAI_API_KEY", provider.key)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    with service(tmp_path, MODEL=f"openai:{request.param}") as url:
        yield AgentClient(url, "chatbot", timeout=90, user_id="ada")


def saved(document: Any) -> bytes:
    """What such a document writes."""
    document.save(written := BytesIO())
    return written.getvalue()


def word(*paragraphs: str) -> bytes:
    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    return saved(document)


def sheets() -> bytes:
    workbook = openpyxl.Workbook()
    workbook.active.title = "Prices"  # pyright: ignore[reportOptionalMemberAccess] - a new one has a sheet
    workbook["Prices"].append(["apple", 3, None, 1.5])
    return saved(workbook)


def slides() -> bytes:
    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[0])
    slide.shapes.title.text = "Results"  # pyright: ignore[reportOptionalMemberAccess] - this layout has a title
    return saved(presentation)


def pdf(text: str, password: str = "") -> bytes:
    """A PDF of one page with this text."""
    writer = PdfWriter()
    page = writer.add_blank_page(300, 300)
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in FONT.items()})
    resources = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})})
    content = DecodedStreamObject()
    content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
    page[NameObject("/Resources")], page[NameObject("/Contents")] = resources, content
    if password:
        writer.encrypt(password)
    writer.write(written := BytesIO())
    return written.getvalue()


FONT = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}


def image(kind: str, width: int = 8, height: int = 8) -> bytes:
    Image.new("RGB", (width, height), "red").save(written := BytesIO(), kind)
    return written.getvalue()


def sound() -> bytes:
    with wave.open(written := BytesIO(), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(800))
    return written.getvalue()


def read(client: AgentClient, name: str, content: bytes, thread: str = "t-1") -> str:
    """What the agent answers that has read this file."""
    client.upload(thread, content, name=name)
    return client.invoke(f"Read the file {name}", thread_id=thread).content


def attached(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of the last message to the model."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, list) else []


def test_it_lists_and_reads(client: AgentClient) -> None:
    """What was uploaded to the thread is listed and read, the latest of a name; another thread's is not there."""
    client.upload("t-1", b"The door code is old.", name="notes.txt")
    client.upload("t-1", b"The door code is new.", name="notes.txt")
    client.upload("t-1", NO_IMAGE, name="door.png")

    assert "door.png (image/png, 72 bytes)" in client.invoke("Which files are there?", thread_id="t-1").content
    assert "The door code is new." in client.invoke("Read the file notes.txt", thread_id="t-1").content
    assert "There is no file notes.txt; there are: none." in client.invoke("Read the file notes.txt").content


def test_of_a_long_text_it_reads_the_beginning(client: AgentClient) -> None:
    """And is told so."""
    answer = read(client, "long.txt", b"word " * 10_000)

    assert "the beginning of 50000 bytes" in answer
    assert len(answer) < 21_000


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Größe;3 €"),
        ("utf-8-sig", "Größe;3 €"),
        ("cp1252", "Name;Größe;Preis\nMüller;3;4 €"),
        ("cp1251", "Имя;Возраст\nИван;30\nМария;25"),  # noqa: RUF001 - a text in Russian
        ("utf-16", "Name;Größe\nMüller;3"),
        ("utf-16-le", "Name;Größe\nMüller;3"),
        ("utf-16-be", "Name;Größe\nMüller;3"),
        ("utf-16", "名前;年齢 ਅ"),
        ("shift_jis", "名前;年齢\n太郎;30\n花子;25"),
        ("gb18030", "姓名,年龄,城市\n张三,30,北京市朝阳区\n李四,25,上海市浦东新区"),
        ("euc_kr", "이름,나이\n김철수,30\n이영희,25"),
    ],
)
def test_it_reads_texts_in_any_encoding(client: AgentClient, encoding: str, text: str) -> None:
    """Spreadsheets save tables in the encoding of the country."""
    assert text in read(client, "table.csv", text.encode(encoding))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("letter.docx", word("Dear Ada,", "the door is red."), "Dear Ada,\nthe door is red.\nleft\tright"),
        ("prices.xlsx", sheets(), "# Prices\napple\t3\t\t1.5"),
        ("talk.pptx", slides(), "# 1\nResults"),
        ("paper.pdf", pdf("The door is red."), "The door is red."),
    ],
)
def test_it_reads_the_text_of_documents(client: AgentClient, name: str, content: bytes, text: str) -> None:
    """Where the model takes text only."""
    assert text in read(client, name, content)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("locked.pdf", pdf("The door is red.", "secret"), "locked.pdf cannot be read: it needs a password."),
        ("half.pdf", pdf("The door is red.")[:200], "half.pdf cannot be read: it is damaged."),
        ("half.docx", word("Dear Ada")[:9000], "half.docx cannot be read: it is damaged."),
        ("empty.pdf", pdf(""), "empty.pdf has no text; its pages may be images."),
        ("door.png", image("PNG"), "door.png is image/png: the model that you are cannot take any image."),
        ("door.wav", sound(), "the model that you are cannot take any audio."),
        ("door.bmp", image("BMP"), "door.bmp is image/bmp, which cannot be read."),
    ],
)
def test_what_it_cannot_read_it_says(client: AgentClient, name: str, content: bytes, reason: str) -> None:
    """In a sentence with the reason, and the thread stays usable."""
    assert reason in read(client, name, content)
    assert client.invoke("What is 2+3?", thread_id="t-1").content.endswith("5")


def test_a_document_that_takes_all_memory_is_given_up(client: AgentClient) -> None:
    """The service goes on: a megabyte of a table may be a gigabyte unpacked."""
    written, words = BytesIO(), b"apple"
    with ZipFile(BytesIO(sheets())) as given, ZipFile(written, "w", ZIP_DEFLATED, compresslevel=1) as bomb:
        for name in given.namelist():
            before, found, after = given.read(name).partition(words)
            with bomb.open(name, "w", force_zip64=True) as file:
                file.write(before)
                for _ in range(600 if found else 0):
                    file.write(b"x" * 2**20)
                file.write(after)

    assert "bomb.xlsx cannot be read: it is" in read(client, "bomb.xlsx", written.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_model_sees_the_images_that_it_reads(seeing: AgentClient, provider: OpenAIServer, kind: str) -> None:
    """As they are, after the tool's result; the next turn does not send them again."""
    content = image(kind)
    read(seeing, f"door.{kind.lower()}", content)
    text, part = attached(provider.received[-1].body)

    assert text == {"type": "text", "text": f"door.{kind.lower()}:"}
    encoding, _, data = part["image_url"]["url"].partition(",")
    assert encoding == f"data:image/{kind.lower()};base64"
    assert b64decode(data) == content

    seeing.invoke("What is 2+3?", thread_id="t-1")
    assert data not in json.dumps(provider.received[-1].body)


def test_a_model_takes_a_pdf(seeing: AgentClient, provider: OpenAIServer) -> None:
    """With its name and its pages, rather than its text."""
    content = pdf("The door is red.")
    read(seeing, "paper.pdf", content)
    part = attached(provider.received[-1].body)[1]["file"]

    assert part["filename"] == "paper.pdf"
    assert b64decode(part["file_data"].partition(",")[2]) == content


@pytest.mark.parametrize("seeing", ["gpt-realtime-2.1"], indirect=True)
def test_a_model_takes_a_sound(seeing: AgentClient, provider: OpenAIServer) -> None:
    """In the provider's name for its format."""
    read(seeing, "door.wav", sound())

    assert attached(provider.received[-1].body)[1]["input_audio"]["format"] == "wav"


def test_a_damaged_image_is_not_sent(seeing: AgentClient, provider: OpenAIServer) -> None:
    """The provider would refuse the request, and the turn would fail."""
    read(seeing, "door.png", NO_IMAGE)
    read(seeing, "wide.png", image("PNG", 20_000, 1_000))
    results = [message["content"] for message in provider.received[-1].body["messages"] if message["role"] == "tool"]

    assert "door.png cannot be read: it is not a complete image." in results[0]
    assert "wide.png cannot be read: it has more than 16,000,000 pixels." in results[1]
    assert "image_url" not in json.dumps([request.body for request in provider.received])


def test_an_image_is_in_no_checkpoint(seeing: AgentClient, provider: OpenAIServer, tmp_path: Path) -> None:
    """The thread keeps its id."""
    read(seeing, "door.png", image("PNG", 300, 300))
    data = attached(provider.received[-1].body)[1]["image_url"]["url"].partition(",")[2]
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*.db*"))

    assert b"door.png" in stored
    assert data.encode() not in stored
    assert b64decode(data) not in stored


def test_reading_is_a_tool_call(client: AgentClient, spans: Recorded) -> None:
    """Reading a file is a tool's span in the turn's trace."""
    client.upload("t-1", b"hello", name="notes.txt")
    spans.settled()
    spans.clear()
    client.invoke("Read the file notes.txt", thread_id="t-1")

    assert "read_file TOOL" in spans.tree()
