"""Sampling at the end, across the page's process and the service's, and the service's death."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from telemetry.export.otlp import Span
from telemetry.testing.receiver import Receiver
from telemetry.testing.tree import span_tree
from tests.processes import ROOT, free_port, start

RATE = 0.1


def env(receiver: Receiver, folder: Path) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
        "TELEMETRY_KEEP_RATE": str(RATE),
        "DATA_DIR": str(folder),
        "DEMO_PACE_S": "0.01",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "PATH": os.environ["PATH"],
    }


class Page:
    """The page's process, one turn at a time."""

    def __init__(self, url: str, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.page", url],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, message: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(message + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Close it as a person would, and wait."""
        self.process.communicate(timeout=60)


def traces(spans: list[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        found[span.trace_id].append(span)
    return found


def is_whole(spans: list[Span]) -> bool:
    """Whether it has its one root, and every parent is there."""
    ids = {span.span_id for span in spans}
    roots = [span.name for span in spans if span.parent_id is None]
    return roots == ["chat turn"] and all(span.parent_id in ids for span in spans if span.parent_id)


@pytest.mark.parametrize("turns", [6, pytest.param(100, marks=pytest.mark.chaos)])
def test_every_kept_trace_is_whole(tmp_path: Path, turns: int, figures: dict[str, Any]) -> None:
    """All errors and all turns with feedback, a share of the rest, no trace in parts, though the service is killed."""
    messages = ["/fail" if n % 6 == 2 else "liked" if n % 6 == 4 else f"hello {n}" for n in range(turns)]
    with Receiver() as receiver:
        environ = env(receiver, tmp_path)
        url = f"http://127.0.0.1:{free_port()}"
        service = [sys.executable, "-m", "app"]
        environ["PORT"] = url.rsplit(":", 1)[1]
        page = Page(url, environ)
        said = []
        with start(service, environ, f"{url}/health") as first:
            for message in messages[: turns // 2]:
                page.ask(message)
                said.append(page.answer())
            page.ask("killed while it answers with a good many words, one after the other, to the very end of it")
            time.sleep(0.3)  # it has begun by then, or has not: both must hold
            first.popen.kill()
            first.popen.wait()
        with start(service, environ, f"{url}/health"):
            broken = page.answer()
            for message in messages[turns // 2 :]:
                page.ask(message)
                said.append(page.answer())
            page.end()
        found = traces(receiver.spans)
    must = {each["trace"] for each in said if each["message"] in ("/fail", "liked")} | {broken["trace"]}
    ordinary = [each for each in said if each["trace"] not in must]
    kept = {each["trace"] for each in ordinary if each["kept"]}
    parts = [trace for trace, spans in found.items() if not is_whole(spans) and trace != broken["trace"]]
    trees = "\n".join(span_tree(found[trace]) for trace in {*parts, *(found.keys() - must - kept)})
    figures.update(
        turns=turns + 1,
        must_be_kept=len(must),
        missing=len((must | kept) - found.keys()),
        ordinary=len(ordinary),
        ordinary_kept=len(kept),
        beyond=len(found.keys() - must - kept),
        in_parts=len(parts),
    )
    assert (figures["missing"], figures["beyond"], figures["in_parts"]) == (0, 0, 0), trees
    assert any(span.name == "chat turn" for span in found[broken["trace"]])
