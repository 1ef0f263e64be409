"""Draw a thread's files: images where they were created, and all files as downloads."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError
from app.schema import FileInfo
from ui import texts
from ui.markdown import escape

# A larger image or sound is drawn as a download.
MAX_DRAWN_BYTES = 5_000_000
MAX_CACHED = 20


def draw_files(client: AgentClient, files: Sequence[FileInfo], place: str | None) -> None:
    """Draw images and sound as such, and other files as downloads."""
    for file in files:
        kind = file.type.partition("/")[0]
        content = _content(client, file) if kind in ("image", "audio") and file.size <= MAX_DRAWN_BYTES else None
        if content and kind == "image":
            st.image(content, caption=escape(file.name))
        elif content:
            st.audio(content, file.type)
            st.caption(escape(file.name))
        else:
            draw_download(client, file, place)


def draw_file_strip(client: AgentClient, files: Sequence[FileInfo]) -> None:
    """Draw the thread's files as downloads beside each other."""
    if files:
        with st.container(horizontal=True, gap="small", wrap=False, key="files"):
            for file in files:
                draw_download(client, file, "list")


def draw_download(client: AgentClient, file: FileInfo, place: str | None) -> None:
    """Draw a file's name and size; its bytes are fetched on a click."""
    st.download_button(
        f"{escape(file.name)} · {format_size(file.size)}",
        partial(read_content, client, file.file_id),
        file.name,
        file.type,
        key=f"file-{place}-{file.file_id}",
        icon=":material/draft:",
        type="tertiary",
        on_click="ignore",
    )


def read_content(client: AgentClient, file_id: str) -> bytes:
    """Return a file's bytes."""
    return b"".join(client.download(file_id))


def format_size(number: float) -> str:
    """Return a number of bytes in the largest unit that fits."""
    for unit in texts.BYTE_UNITS[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} {texts.BYTE_UNITS[-1]}"


def _content(client: AgentClient, file: FileInfo) -> bytes | None:
    try:
        return _cached_content(client, client.user_id, file.file_id)
    except AgentError:
        return None


@st.cache_data(max_entries=MAX_CACHED, show_spinner=False)
def _cached_content(_client: AgentClient, user_id: str | None, file_id: str) -> bytes:  # noqa: ARG001 - a part of the key
    with telemetry.suppress_instrumentation():
        return read_content(_client, file_id)
