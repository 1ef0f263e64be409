"""The peers' environments: made with uv from the pins in bench/peers, and kept until those change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = ROOT / "bench" / "peers"
KEPT = ROOT / ".bench"


class MissingError(RuntimeError):
    """A peer that could not be installed."""


def python_of(peer: str) -> Path:
    """Return the interpreter of the peer's environment, which is made where it is missing."""
    wanted, folder = (PINS / f"{peer}.txt").read_text(), KEPT / peer
    python, made_from = folder / "bin" / "python", folder / "pins.txt"
    if made_from.exists() and made_from.read_text() == wanted:
        return python
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--quiet", "--python", str(python), "-r", str(PINS / f"{peer}.txt"))
    made_from.write_text(wanted)
    return python


def _uv(*words: str) -> None:
    uv = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    done = subprocess.run([uv, *words], capture_output=True, text=True)  # noqa: S603 - our own words
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise MissingError(f"uv {words[0]} ended with {done.returncode}")
