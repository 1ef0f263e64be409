"""Where the time of a cell goes, thread by thread: `python -m bench.profile recorder mode=stream history=40`."""

import cProfile
import os
import pstats
import sys
import tempfile
import threading
import time
from typing import Any

import telemetry
from bench.backend import Backend
from bench.run import cell_of
from bench.sink import sink
from bench.tracing import SETTINGS, start
from bench.turns import measure

LINES = 25


def main(variant: str, *fields: str) -> None:
    """Print the functions that took longest, of the event loop's thread and of each other one."""
    profiles: dict[str, cProfile.Profile] = {}

    def begin(*_: Any) -> None:
        # A thread that waits costs nothing.
        profiles[threading.current_thread().name] = profile = cProfile.Profile(time.thread_time)
        profile.enable()

    os.environ |= SETTINGS.get(variant, {})
    with sink() as endpoint, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        threading.setprofile(begin)
        tracing = start(variant, endpoint)
        begin()
        measure(cell_of(fields), tracing, Backend(endpoint))
        threading.setprofile(None)
        telemetry.shutdown()  # so that its threads have ended, and their figures with them
        for name, profile in list(profiles.items()):
            print(f"\n{name}")
            pstats.Stats(profile).sort_stats("tottime").print_stats(LINES)


if __name__ == "__main__":
    main(*sys.argv[1:])
