"""Install the wheel in fresh environments, run the adoption tests there, and write docs/compatibility.md.

make matrix                          every environment
make matrix MATRIX="oldest logfire"  those whose names contain one of these words; writes nothing
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
RULES = "tests/telemetry/langfuse_rules.py"
BEGIN, END = "<!-- make matrix -->", "<!-- end -->"
TIMEOUT_S = 1800
SHOWN = (
    "opentelemetry-sdk",
    "openinference-instrumentation-langchain",
    "langchain-core",
    "langgraph",
    "pydantic",
    "protobuf",
)
LANGGRAPH, BESIDE, FRAMEWORKS = "test_langgraph.py", "test_beside.py", "test_frameworks.py"
HOSTS = ("starlette", "litestar", "quart", "django", "flask", "opentelemetry-instrumentation-flask")
QUEUES = ("langchain-openai", "celery", "rq", "redis", "nbclient", "ipykernel")
OLD_CORE, LANGCHAIN = "langchain-core>=0.3.15,<1", "langchain>=1"
# Wheels only, except for what has none: a source may take long to build, or compilers.
INSTALL = ("pip", "install", "--only-binary", ":all:", "--no-binary", "forbiddenfruit")
# What the programs of the tests import.
PROGRAM = ("fastapi>=0.115", "httpx>=0.27,<1", "pytest>=8")


@dataclass(frozen=True)
class Environment:
    """An environment: what is installed beside the wheel, and which tests run in it."""

    name: str
    packages: Sequence[str]
    python: str = "3.11"
    tests: str = LANGGRAPH
    is_oldest: bool = False


@dataclass(frozen=True)
class Result:
    """What came of an environment: its packages' versions, and pytest's last line."""

    environment: Environment
    versions: dict[str, str]
    summary: str
    passed: bool


def _langgraph(version: str, *packages: str, python: str = "3.11", oldest: bool = False) -> Environment:
    series = ".".join(re.findall(r"\d+", version)[:2])
    name = f"LangGraph {series}, {'oldest' if oldest else 'newest'}"
    return Environment(name, (f"langgraph{version}", *packages), python, is_oldest=oldest)


def _beside(name: str, *packages: str, python: str = "3.11") -> Environment:
    return Environment(f"beside {name}", ("langgraph", LANGCHAIN, *(packages or (name,))), python, BESIDE)


def _framework(name: str, *packages: str) -> Environment:
    return Environment(name, packages, tests=FRAMEWORKS)


def _instrumented(name: str, instrumentor: str, *packages: str) -> Environment:
    return _framework(name, f"openinference-instrumentation-{instrumentor}", *packages)


ENVIRONMENTS = (
    _langgraph("==0.3.1", OLD_CORE, oldest=True),
    _langgraph("==0.3.1", OLD_CORE, python="3.13", oldest=True),
    _langgraph("~=0.3.34", OLD_CORE),
    # These accept a later langgraph-prebuilt, which does not work with them.
    _langgraph("~=0.4.0", OLD_CORE, "langgraph-prebuilt<0.5"),
    _langgraph("~=0.5.0", OLD_CORE, "langgraph-prebuilt<0.6"),
    _langgraph("~=0.6.0", OLD_CORE, "langgraph-prebuilt<0.7"),
    _langgraph("~=1.0.0", LANGCHAIN, "langgraph-prebuilt<1.0.6"),
    _langgraph("~=1.1.0", LANGCHAIN),
    _langgraph(">=1.2", LANGCHAIN),
    _langgraph(">=1.2", LANGCHAIN, python="3.12"),
    _langgraph(">=1.2", LANGCHAIN, python="3.13"),
    Environment("beside an SDK provider", ("langgraph", LANGCHAIN), tests=BESIDE),
    _beside("opentelemetry-instrument", "opentelemetry-distro", "opentelemetry-exporter-otlp"),
    _beside("chromadb"),
    _beside("logfire"),
    _beside("traceloop-sdk"),
    _beside("azure-monitor-opentelemetry"),
    _beside("google-adk"),
    _beside("ddtrace"),
    _beside("langfuse 2", "langfuse>=2,<3"),
    _beside("langfuse 3", "langfuse>=3,<4"),
    _beside("langfuse 4", "langfuse>=4,<5"),
    _beside("langfuse 5", "langfuse>=5,<6"),
    Environment("other web frameworks", ("langgraph", LANGCHAIN, *HOSTS), tests="test_hosts.py"),
    Environment("queues and notebooks", ("langgraph", LANGCHAIN, *QUEUES), tests="test_jobs.py"),
    Environment(
        "a notebook's kernel, `langgraph dev`",
        ("langgraph", LANGCHAIN, "ipykernel", "jupyter_client", "langgraph-cli[inmem]"),
        tests="test_lives.py",
    ),
    _instrumented("OpenAI's client", "openai", "openai"),
    _instrumented("OpenAI Agents", "openai-agents", "openai-agents"),
    _instrumented("Anthropic's client", "anthropic", "anthropic"),
    _framework("pydantic-ai", "pydantic-ai-slim[openai]"),
    _instrumented("LlamaIndex", "llama-index", "llama-index-core", "llama-index-llms-openai"),
    _instrumented("smolagents", "smolagents", "smolagents[openai]"),
    _instrumented("DSPy", "dspy", "dspy"),
    _instrumented("CrewAI", "crewai", "crewai", "openinference-instrumentation-openai"),
    _framework("Google ADK", "google-adk"),
)


def main(words: Sequence[str]) -> int:
    """Try the environments; return 1 if a test failed in one of them."""
    chosen = [each for each in ENVIRONMENTS if not words or any(word in each.name for word in words)]
    passed = True
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        wheel = _build(Path(folder))
        for each in chosen:
            result = _try(each, wheel, Path(folder))
            passed &= result.passed
            print(_row(result), flush=True)
            _write(result)
    return int(not passed)


def _build(folder: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    _run(build, cwd=ROOT)
    return next(folder.glob("*.whl"))


def _try(environment: Environment, wheel: Path, folder: Path) -> Result:
    python = folder / "venv" / "bin" / "python"
    try:
        _uv("venv", "--clear", "--python", interpreter(environment.python), str(folder / "venv"))
        install = [*INSTALL, "--python", str(python)]
        if environment.is_oldest:
            # uv resolves the lowest releases of what is asked for itself, not of what a wheel asks for.
            _uv(*install, "--resolution", "lowest-direct", "-r", "pyproject.toml", *environment.packages, *PROGRAM)
            _uv(*install, "--no-deps", str(wheel))
        else:
            _uv(*install, str(wheel), *environment.packages, *PROGRAM)
    except subprocess.CalledProcessError as error:
        return Result(environment, {}, f"cannot be installed: {error.stderr.strip().splitlines()[-1]}", passed=False)
    tests = _copy_tests(folder / "tests")
    test = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/adoption/{environment.tests}"]
    done = subprocess.run(test, cwd=tests.parent, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-2_000:])
    summary = re.sub(r" in [\d.]+s.*", "", (done.stdout.strip().splitlines() or [""])[-1]).strip("= ")
    return Result(environment, _versions(python), summary, passed=done.returncode == 0)


def _copy_tests(tests: Path) -> Path:
    """Copy the tests to where they find the installed wheel, and nothing else of this project."""
    shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(ROOT / "tests" / "adoption", tests / "adoption", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tests.parent / "docs", ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "examples", tests.parent / "docs" / "examples")
    (tests / "telemetry").mkdir()
    shutil.copy(ROOT / RULES, tests.parent / RULES)
    for package in (tests, tests / "telemetry"):
        (package / "__init__.py").touch()
    return tests


def _versions(python: Path) -> dict[str, str]:
    listed = json.loads(_uv("pip", "list", "--format", "json", "--python", str(python)))
    return {each["name"]: each["version"] for each in listed}


def interpreter(version: str) -> str:
    """Return the Python of this version: on the path, or one that pyenv has installed."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    built = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(built[-1]) if built else version


def _uv(*arguments: str) -> str:
    uv = os.environ.get("UV") or shutil.which("uv") or ".uv/bin/uv"
    return _run([uv, "--quiet", *arguments], cwd=ROOT)


def _run(command: Sequence[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return done.stdout


def _write(result: Result) -> None:
    """Put the row of an environment into the page, in place of its former one."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    listed, _, after = rest.partition(END)
    rows = {_key(row): row for row in [*listed.strip().splitlines()[2:], _row(result)]}
    known = [rows[key] for key in map(_environment_key, ENVIRONMENTS) if key in rows]
    PAGE.write_text("\n".join([before + BEGIN, *_head(), *known, END + after]))


def _key(row: str) -> tuple[str, str]:
    _, name, python, *_ = (cell.strip() for cell in row.split("|"))
    return name, python


def _environment_key(environment: Environment) -> tuple[str, str]:
    return environment.name, environment.python


def _head() -> tuple[str, str]:
    names = [name.replace("-instrumentation-langchain", "") for name in SHOWN]
    return f"| environment | Python | {' | '.join(names)} | tests |", "|---" * (len(SHOWN) + 3) + "|"


def _row(result: Result) -> str:
    versions = " | ".join(result.versions.get(name, "") for name in SHOWN)
    return f"| {result.environment.name} | {result.environment.python} | {versions} | {result.summary} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
