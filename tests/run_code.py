"""Run the program that is the first argument, as `python -c` does: `processes.run` forks it, which costs no imports."""

import sys

exec(sys.argv.pop(1))
