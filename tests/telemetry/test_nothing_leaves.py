"""A program with secrets in every place, as it runs: what it leaves on disk, on the wire and in its logs."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.testing import Receiver
from telemetry.testing.receiver import Request
from tests.processes import ROOT, bare
from tests.telemetry.export.test_redact_forms import PASSWORD
from tests.telemetry.planted import LETTERS, MODES, OPEN_SESAME, TOKEN
from tests.telemetry.planting import FINE, SAID, SPOOLED

# Half of one, too.
SECRETS = tuple(text.encode() for text in (LETTERS[:12], LETTERS[24:36], OPEN_SESAME, PASSWORD))


def _environment(backend: Receiver, folder: Path, langchain: str, mode: str) -> dict[str, str]:
    return {
        **bare(),
        "HOME": str(folder),
        "DATA_DIR": str(folder / "data"),
        "LANGFUSE_HOST": backend.endpoint,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
        "LANGFUSE_SECRET_KEY": "sk-lf-1",
        "OTEL_RESOURCE_ATTRIBUTES": f"note={TOKEN},{TOKEN}=1",
        "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
        "TELEMETRY_LANGCHAIN": langchain,
        **{name: str(value) for name, value in MODES[mode].items()},
    }


def _sent(request: Request) -> bytes:
    is_packed = request.headers.get("content-encoding") == "gzip"
    body = gzip.decompress(request.body) if is_packed else request.body
    return b"\n".join((request.path.encode(), repr(request.headers).encode(), body))


def _on_disk(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def _leaks(where: bytes) -> list[bytes]:
    return [where[max(at - 200, 0) : at + 80] for secret in SECRETS if (at := where.find(secret)) >= 0]


@pytest.mark.parametrize(
    ("langchain", "mode"),
    # What withholds content knows how each tracer calls it.
    [*(("recorder", mode) for mode in MODES), *(("openinference", mode) for mode in ("default", "metadata", "hidden"))],
)
def test_no_secret_is_on_disk_on_the_wire_or_in_a_log(langchain: str, mode: str, tmp_path: Path) -> None:
    """In each place beside each feature, written in any way, recorded by either tracer: none is anywhere."""
    seed = str(random.random())
    command = [sys.executable, "-m", "tests.telemetry.planting", seed]
    log = tmp_path / "log"
    with Receiver(503) as backend, log.open("wb") as errors:
        environment = _environment(backend, tmp_path, langchain, mode)
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as program:
            assert program.stdin
            assert program.stdout
            said = json.loads(program.stdout.readline() or "{}")
            assert said.get("said") == SPOOLED, log.read_text()
            on_disk = _on_disk(tmp_path / "spool")
            backend.answer = 200
            program.stdin.close()
            assert program.wait(120) == 0, log.read_text()
        sent = b"\n".join(map(_sent, backend.requests))
        spans = backend.spans
    logs = log.read_bytes()

    assert len(spans) > said["spans"]
    # What would hold them is there.
    assert b"the last one" in on_disk
    assert b"the last one" in sent
    assert FINE.encode() in logs
    if mode in ("metadata", "hidden"):
        assert SAID.encode() not in on_disk + sent
    elif mode != "short":
        assert SAID.encode() in sent
    assert (FINE.encode() in sent) == (mode != "metadata")
    for where, found in (("disk", on_disk), ("wire", sent), ("log", logs)):
        assert _leaks(found) == [], (where, seed)
