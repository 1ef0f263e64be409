"""The benchmark runs, and what is committed of it has the promised shape."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import report
from bench.matrix import HISTORIES, MODES, PEERS
from bench.plot import plot
from bench.variants import OURS, SETTINGS
from telemetry.export.stages import build_stages, stage_name
from telemetry.settings import Settings
from tests.processes import ROOT

FIGURES = {"cpu_ratio", "loop_ratio", "added_ms", "kb", "spans"}


def is_row(row: dict[str, Any]) -> bool:
    return (
        {row["variant"]} <= {"untraced", *SETTINGS, *PEERS}
        and row["mode"] in MODES
        and row["history"] in HISTORIES
        and all(isinstance(row[name], int | float) for name in FIGURES)
    )


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return json.loads(report.RESULTS.read_text())


def test_every_stage_has_a_row() -> None:
    """Each stage that spans go through is measured under a name of its own."""
    stages = build_stages(Settings())
    assert len({stage_name(stage) for stage in stages}) == len(stages)


def test_the_short_form_runs(tmp_path: Path) -> None:
    """One cell, one round: rows of a traced and an unsampled variant beside the untraced one, and their tables."""
    results = tmp_path / "results.json"
    few = ["--rounds", "1", "--cells", "1", "--seconds", "0.02", "--variants", "sampled_out,default"]
    command = [sys.executable, "-m", "bench", "--short", *few, "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in json.loads(results.read_text())["rows"]}
    assert list(rows) == ["untraced", "sampled_out", "default"]
    assert all(map(is_row, rows.values()))
    assert (rows["untraced"]["cpu_ratio"], rows["sampled_out"]["spans"]) == (1.0, 0.0)
    assert rows["default"]["spans"] > 5
    assert rows["default"]["kb"] > rows["default"]["kb_sent"] > 0
    assert "ours, `default`" in done.stdout


def test_the_readme_compares_what_was_measured(committed: dict[str, Any]) -> None:
    """Its table, and that of docs/decisions.md, have the figures of the committed results."""
    rows = {(row["variant"], row["history"]): row for row in committed["rows"] if row["mode"] == "stream"}
    four = ["langfuse", "openinference", "default", "recorder"]
    told = re.sub(r"\*\*", "", (ROOT / "README.md").read_text())
    for line, history, write in [
        ("CPU, 40 messages before it | 1", 40, lambda row: f"{row['cpu_ratio']:.2f}"),
        ("CPU, 200 messages | 1", 200, lambda row: f"{row['cpu_ratio']:.2f}"),
        ("milliseconds added, 40 messages |", 40, lambda row: f"{row['added_ms']:.1f}"),
        ("kB recorded and sent, 200 messages |", 200, lambda row: f"{row['kb']:.0f} ({row['kb_sent']:.0f} sent)"),
    ]:
        assert f"| {line} | {' | '.join(write(rows[name, history]) for name in four)} |" in told
    memory = " | ".join(f"{rows[name, 200]['rss_mb']:.0f} MB" for name in ["untraced", *four])
    assert f"| memory at its peak, 200 messages | {memory} |" in told

    decisions = (ROOT / "docs" / "decisions.md").read_text()
    for name in ("openinference", "default", "recorder"):
        assert " | ".join(f"{rows[name, history]['cpu_ratio']:.2f}" for history in HISTORIES) in decisions


def test_the_committed_rows_have_the_promised_shape(committed: dict[str, Any]) -> None:
    """Each of our variants, streamed and invoked, at every length of history; the header says on what."""
    assert all(map(is_row, committed["rows"]))
    found = {(row["variant"], row["mode"], row["history"]) for row in committed["rows"]}
    expected = {(variant, mode, history) for variant in OURS for mode in MODES for history in HISTORIES}
    assert expected - found == set()
    assert {"date", "cores", "memory_gb", "load_average", "versions"} <= committed["header"].keys()


def test_every_peer_has_figures_or_a_reason(committed: dict[str, Any]) -> None:
    """Nobody is left out in silence."""
    measured = {row["variant"] for row in committed["rows"]}
    assert set(PEERS) <= measured | committed["missing"].keys()


def test_the_document_says_what_was_measured(committed: dict[str, Any]) -> None:
    """Section and picture are those of the committed results, not of another run."""
    assert report.section(committed).strip() in report.DOCUMENT.read_text()
    assert plot(committed["rows"]) == report.PICTURE.read_text()
    assert ET.fromstring(report.PICTURE.read_text()).tag.endswith("svg")


def test_the_results_name_no_machine(committed: dict[str, Any]) -> None:
    """They can be published: no path, no host, no address."""
    published = json.dumps(committed) + report.section(committed)
    assert not re.search(r"(?<!\.)/(home|root|tmp|work|usr)/|https?://", published)


@pytest.mark.parametrize("peer", PEERS)
def test_every_peer_is_pinned(peer: str) -> None:
    """What a peer's environment is made of is said to the version, and the agent's part of it is everybody's."""
    pins = (ROOT / "bench" / "peers" / f"{peer}.txt").read_text().split()
    assert [pin for pin in pins if not re.fullmatch(r"[\w.\[\]-]+==[\w.]+", pin)] == []
    assert {"langgraph==1.2.22", "langchain-core==1.7.2"} <= set(pins)
