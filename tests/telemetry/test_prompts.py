"""Prompts that come from a Langfuse, or, when it is out of order, from elsewhere."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import telemetry
from telemetry import pipeline, prompts
from telemetry.prompts import Prompts
from telemetry.settings import Settings
from telemetry.testing import recording
from tests.langfuse_server import Langfuse, langfuse_server
from tests.processes import ROOT, UNSET, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Langfuse]:
    with langfuse_server(tmp_path) as server:
        yield server


def store(server: Langfuse, text: str) -> None:
    """Store a text as the next version of a prompt."""
    body = {"name": "greet/kindly", "prompt": text, "labels": ["production"]}
    httpx.post(f"{server.url}/api/public/v2/prompts", json=body, auth=server.keys).raise_for_status()


def made(server: Langfuse, folder: Path, url: str = "") -> Prompts:
    """The prompts of a new process."""
    keys: dict[str, Any] = {
        "langfuse_host": url or server.url,
        "public_key": server.keys[0],
        "secret_key": server.keys[1],
    }
    return Prompts(Settings.model_validate({**keys, "spool_dir": folder}))


def said(known: Prompts) -> tuple[str, int | None, str | None] | None:
    found = known.get("greet/kindly", "production")
    return (found.text, found.version, found.source) if found else None


def test_a_prompt_is_fetched_once_and_then_in_the_background(
    server: Langfuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call waits for it, later ones have it at once, and a newer version after a while."""
    store(server, "Hi {{who}}")
    known = made(server, tmp_path)
    assert said(known) == ("Hi {{who}}", 1, "langfuse")
    store(server, "Hey {{who}}")
    assert said(known) == ("Hi {{who}}", 1, "langfuse")
    monkeypatch.setattr(prompts, "CURRENT_S", 0)
    until(lambda: said(known) == ("Hey {{who}}", 2, "langfuse"))


def test_an_outage_changes_nothing(server: Langfuse, tmp_path: Path) -> None:
    """The last version that any process has fetched is used, or the program's own text, and it is told which."""
    nobody = "http://127.0.0.1:9"
    assert said(made(server, tmp_path, nobody)) is None
    store(server, "Hi {{who}}")
    assert said(made(server, tmp_path)) == ("Hi {{who}}", 1, "langfuse")
    again = made(server, tmp_path)
    again._settings = again._settings.model_copy(update={"langfuse_host": nobody})
    assert said(again) == ("Hi {{who}}", 1, "disk")
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("prompts-*/*"))


def test_an_outage_is_one_line(
    tmp_path: Path, server: Langfuse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a prompt is asked for meanwhile."""
    monkeypatch.setattr(prompts, "CURRENT_S", 0)
    known = made(server, tmp_path, "http://127.0.0.1:9")
    for _ in range(5):
        known.get("greeting", "production")
    for thread in [each for each in threading.enumerate() if each.name == "telemetry-prompts"]:
        thread.join(60)
    assert len([record for record in caplog.records if "cannot be fetched" in record.message]) == 1


def test_no_loop_waits_for_a_prompt(server: Langfuse, tmp_path: Path) -> None:
    """In an event loop the first call has no answer yet, and a later one has."""
    store(server, "Hi")
    known = made(server, tmp_path)

    async def ask() -> tuple[str, int | None, str | None] | None:
        return said(known)

    assert asyncio.run(ask()) is None
    until(lambda: said(known) == ("Hi", 1, "langfuse"))


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
def test_a_model_call_says_which_prompt_it_had(server: Langfuse, tmp_path: Path, recorder: str) -> None:
    """Its version and where it came from; without Langfuse neither."""
    store(server, "Hi {{who}}")
    keys = {"langfuse_host": server.url, "public_key": server.keys[0], "secret_key": server.keys[1]}
    model = GenericFakeChatModel(messages=iter([AIMessage("Hello"), AIMessage("Hello"), AIMessage("Hello")]))

    def call(name: str) -> str:
        prompt = telemetry.prompt(name, fallback="Greet {{who}}")
        model.invoke(prompt.compile(who="Ada"), {"metadata": prompt.metadata})
        return prompt.compile(who="Ada")

    with recording(Settings.model_validate({**keys, "langchain": recorder, "spool_dir": tmp_path})) as spans:
        prompts.start(Settings.model_validate({**keys, "spool_dir": tmp_path}))
        asked = [call("greet/kindly"), call("unknown")]
        pipeline.remove(Prompts)
        asked.append(call("greet/kindly"))
        found = [span.attributes or {} for span in spans.settled()]
    names = [f"langfuse.observation.{each}" for each in ("prompt.name", "prompt.version", "metadata.prompt_source")]
    assert asked == ["Hi Ada", "Greet Ada", "Greet Ada"]
    assert [tuple(map(each.get, names)) for each in found] == [
        ("greet/kindly", 1, "langfuse"),
        (None, None, "fallback"),
        (None, None, None),
    ]
    assert not any("langfuse_prompt" in str(each.get("metadata")) for each in found)


def test_a_folder_of_prompts_is_stored(server: Langfuse, tmp_path: Path) -> None:
    """The difference is shown first; what has not changed gets no new version, and diff stores nothing."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "greet.txt").write_text("Hi {{who}}\n")

    def run(action: str) -> str:
        command = [sys.executable, "-m", "telemetry", "prompts", action, str(folder)]
        done = subprocess.run(
            command, cwd=ROOT, env={**UNSET, **server.env}, capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout

    assert "+Hi {{who}}" in run("diff")
    assert server.get("/api/public/v2/prompts")["data"] == []
    assert "stored as version 1" in run("push")
    assert "unchanged, version 1" in run("push")
    (folder / "greet.txt").write_text("Hey {{who}}\n")
    changed = run("push")
    assert "-Hi {{who}}\n+Hey {{who}}" in changed
    assert "stored as version 2" in changed
