"""Runs every program in this process, set up as its environment says, and prints what each did as JSON."""

import faulthandler
import json
import resource
import sys

import telemetry
from tests.differential import observed
from tests.differential.programs import PROGRAMS

SECONDS = 600
BYTES = 6 * 1024**3


def main() -> None:
    """Run those that are named, all without a name."""
    # What reads an endless value, or waits for a lock that its caller holds, ends here and not with the machine.
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    telemetry.configure("differential")
    wanted = sys.argv[1:] or list(PROGRAMS)
    found = {name: observed.run(PROGRAMS[name]) for name in wanted}
    telemetry.flush(5)
    internal = telemetry.stats()["process"]["failures"]
    telemetry.shutdown()
    sys.stdout.write(json.dumps({"programs": found, "failures": internal}))


if __name__ == "__main__":
    main()
