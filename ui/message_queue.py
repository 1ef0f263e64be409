"""Messages that were sent while an answer is written: each waits until the thread is free."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import streamlit as st

from ui.chat import Chat


@dataclass(frozen=True, eq=False)
class WaitingMessage:
    """A message with its files, and the chat with the choices that were made when it was sent."""

    chat: Chat
    message: str
    files: Sequence[BinaryIO]


@dataclass
class MessageQueue:
    """The waiting messages of each user's threads; they are lost with the process."""

    _waiting: defaultdict[tuple[str | None, str], list[WaitingMessage]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, chat: Chat) -> Sequence[WaitingMessage]:
        """Return the messages that wait in this chat, the next one first."""
        return tuple(self._waiting.get(_key(chat), ()))

    def add(self, chat: Chat, message: str, files: Sequence[BinaryIO] = ()) -> None:
        """Let a message wait for the end of the chat's turn."""
        with self._lock:
            self._waiting[_key(chat)].append(WaitingMessage(chat, message, files))

    def remove(self, chat: Chat, waiting: WaitingMessage) -> None:
        """Take a message out."""
        with self._lock:
            self._waiting[_key(chat)] = [each for each in self._waiting[_key(chat)] if each is not waiting]

    def send_next(self, chat: Chat) -> bool:
        """Send the next message of a chat that is free; return whether there was one."""
        with self._lock:
            waiting = self._waiting.get(_key(chat))
            following = waiting.pop(0) if waiting else None
        if following is None:
            return False
        following.chat.send(following.message, following.files)
        return True


@st.cache_resource(show_spinner=False)
def message_queue() -> MessageQueue:
    """Return the waiting messages of this process, the same for every page."""
    return MessageQueue()


def _key(chat: Chat) -> tuple[str | None, str]:
    return chat.client.user_id, chat.thread_id
