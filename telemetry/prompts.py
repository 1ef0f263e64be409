"""Prompts of Langfuse for a program that must not wait for it: from memory, from disk, or as the program has them."""

import asyncio
import json
import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.instrumentation.utils import suppress_instrumentation

from telemetry import internal_errors, pipeline
from telemetry.backends.langfuse import NoPromptError, fetch_prompt, why_no_sdk
from telemetry.settings import Settings

logger = logging.getLogger(__name__)

# How long a prompt counts as current; then it is asked for again while the known one is used.
CURRENT_S = 60.0
_VARIABLE = re.compile(r"{{\s*(\w+)\s*}}")


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt, and where it comes from.

    `source` is `langfuse`, `disk` (the last version that was fetched, in an outage), or `fallback`. It is None without
    Langfuse. A fallback has no version.
    """

    name: str
    text: str
    version: int | None = None
    source: str | None = None

    def compile(self, **variables: object) -> str:
        """Return the text with values in place of `{{variables}}`; those without a value stay."""
        return _VARIABLE.sub(lambda found: str(variables.get(found[1], found[0])), self.text)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata for the config of a model call, which links the call to this version."""
        return {"langfuse_prompt": self}


class _Known(NamedTuple):
    prompt: Prompt | None
    asked: float


class Prompts:
    """The prompts of this process, by name and label."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        account = sha256(f"{settings.langfuse_url} {settings.public_key}".encode()).hexdigest()[:8]
        self._folder = settings.spool_dir.absolute() / f"prompts-{account}" if settings.spool else None
        self._known: dict[tuple[str, str], _Known] = {}
        self._unreachable: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def get(self, name: str, label: str) -> Prompt | None:
        """Return a prompt, None for one that there is not, or not yet; a thread asks for it where it is not current.

        The first call waits for the answer, unless it is made in an event loop.
        """
        key = name, label
        with self._lock:
            known = self._known.get(key)
            is_current = known is not None and time.monotonic() - known.asked < CURRENT_S
            prompt = known.prompt if known else self._read(key)
            if not is_current:
                self._known[key] = _Known(prompt, time.monotonic())
        if is_current:
            return prompt
        if known is None and not _in_event_loop():
            self._ask(key)
            return self._known[key].prompt
        threading.Thread(target=self._ask, args=(key,), name="telemetry-prompts", daemon=True).start()
        return prompt

    def _ask(self, key: tuple[str, str]) -> None:
        name, label = key
        with suppress_instrumentation():
            try:
                text, version = fetch_prompt(self._settings, name, label)
            except NoPromptError:
                self._keep(key, None)
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the known prompt is used
                if key not in self._unreachable:
                    logger.warning("the prompt %s cannot be fetched, and is asked for again: %s", name, error)
                self._unreachable.add(key)
                known = self._known[key].prompt
                if known and known.source == "langfuse":
                    stale = Prompt(name, known.text, known.version, "disk" if self._folder else "langfuse")
                    self._known[key] = _Known(stale, time.monotonic())
            else:
                self._keep(key, Prompt(name, text, version, "langfuse"))

    def _keep(self, key: tuple[str, str], prompt: Prompt | None) -> None:
        self._unreachable.discard(key)
        self._known[key] = _Known(prompt, time.monotonic())
        if (path := self._path(key)) is None:
            return
        try:
            if prompt is None:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.touch(mode=0o600)
            draft.write_text(json.dumps({"text": prompt.text, "version": prompt.version}), encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            internal_errors.record("keep a prompt", error)

    def _read(self, key: tuple[str, str]) -> Prompt | None:
        path = self._path(key)
        try:
            kept = json.loads(path.read_text(encoding="utf-8")) if path else None
            return Prompt(key[0], str(kept["text"]), int(kept["version"]), "disk") if kept else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, key: tuple[str, str]) -> Path | None:
        return self._folder / f"{sha256(json.dumps(key).encode()).hexdigest()[:32]}.json" if self._folder else None


def start(settings: Settings) -> None:
    """Make the prompts of Langfuse available, if spans go with keys for one."""
    if settings.langfuse_url and why_no_sdk() is None:
        pipeline.put(Prompts(settings))


def prompt(name: str, *, label: str = "production", fallback: str) -> Prompt:
    """Return a text prompt of Langfuse, or the fallback; it is fetched in the background once it is known.

    Args:
        name: the prompt's name.
        label: which version: the one with this label.
        fallback: the text without Langfuse, without such a prompt, or in an outage if none was fetched before.

    The model call that gets it is linked to its version by `prompt.metadata` in the call's config, and says where it
    came from (`prompt_source`).

    Example:
        >>> import telemetry
        >>> greeting = telemetry.prompt("greeting", fallback="Greet {{who}}.")
        >>> greeting.compile(who="Ada")
        'Greet Ada.'
    """
    prompts = pipeline.get(Prompts)
    found = prompts.get(name, label) if prompts else None
    return found or Prompt(name, fallback, source="fallback" if prompts else None)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
