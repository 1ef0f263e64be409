"""The package: the size of what is published and installed, and what its import costs.

python -m bench.package
"""

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.runner import ROOT

RUNS = 7
# Modules that no import of the package may load: each is an extra, or what a service brings itself.
OTHERS = ("fastapi", "langchain_core", "langfuse", "langgraph", "prometheus_client", "starlette", "uvicorn")
IMPORT = f"""
import sys, time
began, before = time.process_time(), len(sys.modules)
import telemetry
print(time.process_time() - began, len(sys.modules) - before,
      sum(name.split(".")[0] == "telemetry" for name in sys.modules),
      ",".join(name for name in {OTHERS} if name in sys.modules))
"""


@dataclass(frozen=True)
class Import:
    """What one `import telemetry` in a fresh process costs."""

    seconds: float
    modules: int
    ours: int
    others: list[str]


def main() -> None:
    """Print the sizes and the import's cost."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        wheel, sdist = next(Path(folder).glob("*.whl")), next(Path(folder).glob("*.tar.gz"))
        unpacked = sum(file.file_size for file in zipfile.ZipFile(wheel).infolist())
        print(f"wheel: {wheel.stat().st_size / 1000:.0f} kB, unpacked {unpacked / 1000:.0f} kB; ", end="")
        print(f"source distribution: {sdist.stat().st_size / 1000:.0f} kB")
    runs = [imported() for _ in range(RUNS)]
    print(f"import telemetry, in a new process: {median(run.seconds for run in runs) * 1000:.0f} ms of CPU, ", end="")
    print(f"{runs[0].modules} modules, {runs[0].ours} of them ours")


def build(folder: Path, checkout: Path = ROOT) -> None:
    """Build the wheel and the source distribution of a checkout into the folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=checkout, capture_output=True, check=True)  # noqa: S603 - our own build


def imported() -> Import:
    """Import the package in a fresh process and return what that took."""
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    seconds, modules, ours, others = done.stdout.rstrip("\n").split(" ")
    return Import(float(seconds), int(modules), int(ours), [name for name in others.split(",") if name])


if __name__ == "__main__":
    main()
