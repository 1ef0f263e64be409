"""Measure one cell: `python -m bench.run recorder,default mode=stream history=40`."""

import json
import sys

from bench.matrix import parse_cell
from bench.runner import run
from bench.sink import sink


def main(variants: str, *cell: str) -> None:
    """Print the figures of the untraced cell, and of the cell with each of these variants."""
    with sink() as endpoint:
        for name in ("untraced", *variants.split(",")):
            print(name, json.dumps(run(name, parse_cell(cell), endpoint)))


if __name__ == "__main__":
    main(*sys.argv[1:])
