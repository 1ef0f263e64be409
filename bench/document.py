"""What a run leaves behind: results.json, the section of the document, the picture."""

import json
import re
from pathlib import Path
from typing import Any

from bench.plot import plot
from bench.table import tables

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results.json"
DOCUMENT = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "images" / "bench.svg"
HEADING = "## Measured"
SECTION = re.compile(rf"^{HEADING}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def write_results(results: dict[str, Any], path: Path = RESULTS) -> None:
    """Write the rows, one a line."""
    path.write_text(as_json(results))


def as_json(results: dict[str, Any]) -> str:
    """Return the results as JSON that a person can read, and a diff."""
    parts = [f"{json.dumps(name)}: {_lines(value)}" for name, value in results.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    return "[\n  " + ",\n  ".join(json.dumps(each) for each in value) + "\n]"


def write_document(results: dict[str, Any]) -> None:
    """Write the picture, and the section that has it and the tables."""
    PICTURE.write_text(plot(results["rows"]))
    before = DOCUMENT.read_text() if DOCUMENT.exists() else f"# What tracing costs\n\n{HEADING}\n"
    if not SECTION.search(before):
        before = f"{before.rstrip()}\n\n{HEADING}\n"
    DOCUMENT.write_text(SECTION.sub(lambda _: section(results), before))


def section(results: dict[str, Any]) -> str:
    """Return the section of the document, made of the results alone."""
    texts = [f"{title}:\n\n```text\n{text}\n```" for title, text in results.get("texts", {}).items()]
    parts = [HEADING, _how(results["header"]), "![CPU time of a turn](images/bench.svg)", tables(results), *texts]
    return "\n\n".join(parts) + "\n\n"


def _how(header: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return (
        "Written by `make bench`; [`bench/results.json`](../bench/results.json) has the same figures. "
        f"{header['date']}, {header['cores']} cores, {header['memory_gb']} GB, "
        f"load average {header['load_average']:g}, Python {header['python']}; {header['rounds']} rounds "
        f"({header['peer_rounds']} of the peers). Of the CPU times the lower quartile of all parts of all rounds is "
        "told: what else a machine does only adds to them. In brackets, how far the rounds' own ratios lie apart. On "
        "a machine that does other work as well, read the ratios, not the milliseconds.\n\n"
        "A turn is a question, a model's call of one tool, and the answer in 55 chunks, on a model that answers at "
        "once: the cost of LangGraph and of tracing is left. `stream 40` is a conversation with 40 messages "
        "of history, some 250 characters each, that grows by three turns, streamed. Every variant in a fresh process, "
        "every round one after the other; everything sent to a local sink before the clock stops.\n\n"
        f"Versions: {versions}."
    )
