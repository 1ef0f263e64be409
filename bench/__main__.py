"""`make bench` and `make bench-short`: measure, print, and write down."""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bench.cells import GROUPS, MODES, PEERS, SHORT
from bench.document import RESULTS, ROOT, write_document, write_results
from bench.figures import replaced, results
from bench.measure import Plan, measure
from bench.sink import sink
from bench.table import tables
from bench.tracing import SETTINGS

TEXTS = {
    "What each stage costs, redaction among them": "bench.stages",
    "The spool": "bench.spool",
    "Tasks and heartbeats": "bench.task",
}


def main() -> None:
    """Print the tables; a whole run also writes the documents."""
    asked = _arguments()
    plan = _plan(asked)
    # First: what fails here is not found out after half an hour.
    texts = {} if asked.only or asked.short else {title: _said_by(module) for title, module in TEXTS.items()}
    with sink() as endpoint:
        found = results(plan, measure(plan, endpoint))
    if asked.only:
        found = replaced(json.loads(RESULTS.read_text()), found)
    elif texts:
        found["texts"] = texts
    print(tables(found))
    for text in found.get("texts", {}).values():
        print(f"\n{text}")
    if asked.results:
        write_results(found, asked.results)
    elif not asked.short:
        write_results(found)
        write_document(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few cells, ours and OpenInference only")
    parser.add_argument("--rounds", type=int, help="how often each cell is run at most (5; short: 3)")
    parser.add_argument("--peer-rounds", type=int, help="how often by the peers (2)")
    parser.add_argument("--variants", help="only these, by comma")
    parser.add_argument("--cells", type=int, help="only so many of the cells")
    parser.add_argument("--only", choices=GROUPS, help="only these cells; the figures of all others stay as they are")
    parser.add_argument("--seconds", type=float, help="CPU time that each turn's cell takes at least (1; short: 0.6)")
    parser.add_argument("--results", type=Path, help="write results.json here, and no document")
    return parser.parse_args()


def _plan(asked: argparse.Namespace) -> Plan:
    chosen = [asked.only] if asked.only else GROUPS
    cells = SHORT if asked.short else [cell for group in chosen for cell in GROUPS[group]]
    variants = [*SETTINGS, *(PEERS[:1] if asked.short else PEERS)]
    if asked.variants:
        variants = [name for name in variants if name in asked.variants.split(",")]
    if asked.seconds:
        cells = [replace(cell, seconds=asked.seconds) if cell.mode in MODES else cell for cell in cells]
    return Plan(cells[: asked.cells], variants, asked.rounds or (3 if asked.short else 5), asked.peer_rounds or 2)


def _said_by(module: str) -> str:
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    return done.stdout.strip()


if __name__ == "__main__":
    main()
