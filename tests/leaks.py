"""A watch over all tests: nothing that one of them writes to a spool or sends to a backend has a planted secret."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from telemetry.delivery.http import OtlpClient
from telemetry.delivery.store import SpoolStore
from tests.telemetry.planted import BODY, LETTERS, OPEN_SESAME

# Every key that is planted is made of these.
PLANTED = tuple(text.encode() for text in (LETTERS[:20], BODY, OPEN_SESAME))

# What writes to a spool, or sends to a backend.
CALLS: tuple[tuple[type, str], ...] = (
    (SpoolStore, "append"),
    (SpoolStore, "hold"),
    (SpoolStore, "replace_with_stub"),
    (SpoolStore, "add_dead_letters"),
    (OtlpClient, "post"),
)


def leaks(body: bytes) -> list[bytes]:
    """The planted secrets in some bytes."""
    return [secret for secret in PLANTED if secret in body]


@contextmanager
def watch(
    monkeypatch: pytest.MonkeyPatch, calls: Sequence[tuple[type, str]] = CALLS
) -> Iterator[list[tuple[str, list[bytes]]]]:
    """What of the planted secrets this process writes to a spool or sends over OTLP meanwhile, and by which call."""
    found: list[tuple[str, list[bytes]]] = []

    def watched(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(self: Any, *arguments: Any) -> Any:
            if leaked := leaks(b"\n".join(_bytes_in(arguments))):
                found.append((f"{owner.__name__}.{name}", leaked))
            return original(self, *arguments)

        monkeypatch.setattr(owner, name, call)

    for owner, name in calls:
        watched(owner, name)
    yield found


def in_spools(folder: Path) -> list[Path]:
    """The files of spools below a folder, whichever process has written them, that hold a planted secret."""
    found: list[Path] = []
    for within, _, names in os.walk(folder):
        if "spool" in Path(within).parts:
            found += [path for name in names if leaks(_read(path := Path(within, name)))]
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:  # one that a test has made unreadable
        return b""


def _bytes_in(value: Any) -> Iterable[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield value.encode(errors="replace")
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _bytes_in(each)
