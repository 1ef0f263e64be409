"""Measure the matrix, print its tables, and write them to the documents: `make bench` and `make bench-short`."""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from bench.matrix import GROUPS, MODES, PEERS, SHORT
from bench.report import RESULTS, replaced, results, tables, write_document, write_results
from bench.runner import ROOT, Plan, measure
from bench.sink import sink
from bench.variants import SETTINGS

TEXTS = {
    "What each stage costs, redaction among them": "bench.stages",
    "What redaction costs by the kind of text": "bench.redaction",
    "The spool": "bench.spool",
    "A photo in the history": "bench.photo",
    "Tasks and heartbeats": "bench.task",
    "Metrics, where they are on": "bench.metrics",
    "The package": "bench.package",
}
ONLY_TEXTS = "texts"
SHORT_TEXTS = {title: module for title, module in TEXTS.items() if module == "bench.redaction"}


def main() -> None:
    """Print the tables; a full run also writes the documents."""
    arguments = _parse_arguments()
    plan = _plan(arguments)
    # First, so that a failure here does not cost half an hour.
    modules = {} if arguments.only in GROUPS else SHORT_TEXTS if arguments.short else TEXTS
    texts = {title: _output_of(module) for title, module in modules.items()}
    if arguments.only == ONLY_TEXTS:
        measured = json.loads(RESULTS.read_text()) | {"texts": texts}
        write_results(measured)
        write_document(measured)
        return
    with sink() as endpoint:
        measured = results(plan, measure(plan, endpoint))
    if arguments.only:
        measured = replaced(json.loads(RESULTS.read_text()), measured)
    elif texts:
        measured["texts"] = texts
    print(tables(measured))
    for text in measured.get("texts", {}).values():
        print(f"\n{text}")
    if arguments.results:
        write_results(measured, arguments.results)
    elif not arguments.short:
        write_results(measured)
        write_document(measured)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="few cells, ours and OpenInference only")
    parser.add_argument("--rounds", type=int, help="the most rounds of a cell (5; short: 3)")
    parser.add_argument("--peer-rounds", type=int, help="the rounds of other tracers (2)")
    parser.add_argument("--variants", help="only these, separated by commas")
    parser.add_argument("--cells", type=int, help="only the first so many cells")
    only = "only these cells, or what is measured beside them; all other figures stay as they are"
    parser.add_argument("--only", choices=[*GROUPS, ONLY_TEXTS], help=only)
    parser.add_argument("--seconds", type=float, help="the least CPU time of a cell of turns (1; short: 0.6)")
    parser.add_argument("--results", type=Path, help="write results.json here, and no document")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    chosen = [arguments.only] if arguments.only else GROUPS
    cells = SHORT if arguments.short else [cell for group in chosen for cell in GROUPS[group]]
    variants = [*SETTINGS, *(PEERS[:1] if arguments.short else PEERS)]
    if arguments.variants:
        variants = [name for name in variants if name in arguments.variants.split(",")]
    if arguments.seconds:
        cells = [replace(cell, seconds=arguments.seconds) if cell.mode in MODES else cell for cell in cells]
    return Plan(
        cells[: arguments.cells],
        variants,
        arguments.rounds or (3 if arguments.short else 5),
        arguments.peer_rounds or 2,
    )


def _output_of(module: str) -> str:
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own module
    return done.stdout.strip()


if __name__ == "__main__":
    main()
