"""The files of a thread: images where they came up, all of them to be taken home."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

import telemetry
from app.client import AgentClient, AgentError
from app.schema import FileInfo
from ui.plain import plain

# A larger image is a file among the others.
MAX_SHOWN = 5_000_000
SHOWN_AT_ONCE = 20
UNITS = ("B", "kB", "MB", "GB")


def draw_files(client: AgentClient, files: Sequence[FileInfo], place: str | None) -> None:
    """Draw images as such and other files by their names, each to be downloaded."""
    for file in files:
        if file.type.startswith("image/") and file.size <= MAX_SHOWN and (image := _image(client, file)):
            st.image(image, caption=plain(file.name))
        else:
            draw_download(client, file, place)


def draw_download(client: AgentClient, file: FileInfo, place: str | None) -> None:
    """Draw a file's name and size; its bytes are fetched for who clicks."""
    st.download_button(
        f"{plain(file.name)} · {size(file.size)}",
        partial(content, client, file.file_id),
        file.name,
        file.type,
        key=f"file-{place}-{file.file_id}",
        icon=":material/draft:",
        type="tertiary",
        on_click="ignore",
    )


def content(client: AgentClient, file_id: str) -> bytes:
    """Return a file's bytes."""
    return b"".join(client.download(file_id))


def size(number: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in UNITS[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} {UNITS[-1]}"


def _image(client: AgentClient, file: FileInfo) -> bytes | None:
    try:
        return _fetched(client, client.user_id, file.file_id)
    except AgentError:
        return None


@st.cache_data(max_entries=SHOWN_AT_ONCE, show_spinner=False)
def _fetched(_client: AgentClient, user_id: str | None, file_id: str) -> bytes:  # noqa: ARG001 - a part of the key
    with telemetry.untraced():
        return content(_client, file_id)
