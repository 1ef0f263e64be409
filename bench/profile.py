"""Profile a cell, thread by thread: `python -m bench.profile recorder mode=stream history=40`."""

import cProfile
import os
import pstats
import sys
import tempfile
import threading
import time
from typing import Any

import telemetry
from bench.matrix import parse_cell
from bench.sink import SinkClient, sink
from bench.turns import measure
from bench.variants import SETTINGS, start

LINES = 25


def main(variant: str, *cell: str) -> None:
    """Print the functions that took longest, for the event loop's thread and for each other one."""
    profiles: dict[str, cProfile.Profile] = {}

    def begin(*_: Any) -> None:
        # By CPU time, so that a waiting thread costs nothing.
        profiles[threading.current_thread().name] = profile = cProfile.Profile(time.thread_time)
        profile.enable()

    os.environ |= SETTINGS.get(variant, {})
    with sink() as endpoint, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        threading.setprofile(begin)
        tracing = start(variant, endpoint)
        begin()
        measure(parse_cell(cell), tracing, SinkClient(endpoint))
        threading.setprofile(None)
        telemetry.shutdown()  # ends its threads, which completes their profiles
        for name, profile in list(profiles.items()):
            print(f"\n{name}")
            pstats.Stats(profile).sort_stats("tottime").print_stats(LINES)


if __name__ == "__main__":
    main(*sys.argv[1:])
