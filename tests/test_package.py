"""What others install, and what they may import from it."""

import inspect
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import telemetry
from telemetry.testing import Recorded
from tests.processes import ROOT, UNSET, serve

PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    wheel = zipfile.ZipFile(next(built.glob("*.whl")))
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_is_typed(built: Path) -> None:
    """Type checkers of those who install it believe its annotations."""
    assert "telemetry/py.typed" in zipfile.ZipFile(next(built.glob("*.whl"))).namelist()


def test_the_wheel_holds_only_telemetry(built: Path) -> None:
    """A top-level `app` would collide with other people's: the wheel is telemetry, whole and alone."""
    names = [Path(name) for name in zipfile.ZipFile(next(built.glob("*.whl"))).namelist()]
    packed = {name.as_posix() for name in names if not name.parts[0].endswith(".dist-info")}
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "telemetry").rglob("*") if path.is_file()}
    assert packed == {name for name in kept if "__pycache__" not in name}


def test_the_source_distribution_holds_the_package_only(built: Path) -> None:
    """Neither tests nor the service travel with it, and no cache."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    tops = {Path(name).parts[1] for name in names}
    assert tops <= {"telemetry", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert not [name for name in names if "__pycache__" in name]


def test_what_can_be_asked_for(metadata: Message) -> None:
    """The extras, the Pythons and the licence are told to installers."""
    assert set(metadata.get_all("Provides-Extra", [])) == {"langfuse", "prometheus", "viewer", "api", "ui", "s3"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    told = [line.rsplit(" :: ")[-1] for line in metadata.get_all("Classifier", []) if ":: Python :: 3." in line]
    assert tuple(told) == PYTHONS


def test_the_wheel_works_alone(built: Path, tmp_path: Path) -> None:
    """From the wheel alone the public face can be imported, and spans recorded."""
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(tmp_path)
    code = (
        "import telemetry, telemetry.testing\n"
        "assert telemetry.__file__.startswith(__import__('sys').argv[1])\n"
        "with telemetry.testing.recording() as spans:\n"
        "    with telemetry.span('work'): pass\n"
        "    assert spans.tree() == 'work'\n"
    )
    run = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{code}", str(tmp_path)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_PROPAGATORS": "tracecontext,baggage", "OTEL_BSP_MAX_QUEUE_SIZE": "100"},
        {"OTEL_PROPAGATORS": "", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "", "OTEL_BSP_MAX_QUEUE_SIZE": "many"},
    ],
)
def test_an_import_leaves_the_environment_alone(variables: dict[str, str]) -> None:
    """Variables that the SDK can read are not taken away, even for a moment."""
    code = """
import sys
events = []
sys.addaudithook(lambda event, _: events.append(event) if event in ("os.putenv", "os.unsetenv") else None)
import telemetry
print(events)
"""
    env = {**UNSET, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_said_to_be() -> None:
    """`__all__` is sorted, complete and documented: each name has a docstring and a line in docs/telemetry.md."""
    assert telemetry.__all__ == sorted(telemetry.__all__)
    undocumented = [name for name in telemetry.__all__ if not inspect.getdoc(getattr(telemetry, name))]
    assert undocumented == []
    listed = re.findall(r"^\| `(\w+)", (ROOT / "docs" / "telemetry.md").read_text(), re.MULTILINE)
    assert sorted(listed) == telemetry.__all__


def test_nothing_else_is_public() -> None:
    """What is imported into the package's face is in `__all__`, or it is a module."""
    public = {name for name, value in vars(telemetry).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert public == set(telemetry.__all__)


@pytest.mark.parametrize(("former", "name"), telemetry._RENAMED.items())
def test_a_former_name_warns_and_works(former: str, name: str) -> None:
    """Who still uses it is told the new one, and gets the same; nobody is offered it."""
    with pytest.warns(DeprecationWarning, match=rf"telemetry\.{former} is now called telemetry\.{name}"):
        assert getattr(telemetry, former) is getattr(telemetry, name)
    assert name in telemetry.__all__
    assert former not in telemetry.__all__


@pytest.mark.parametrize("name", ["spam", "_spam"])
def test_a_name_that_never_was_is_an_ordinary_error(name: str) -> None:
    """A slip of the pen says which name there is not."""
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(telemetry, name)


def test_former_arguments_warn_and_work(spans: Recorded) -> None:
    """`instrument(quiet=, honours=)` is told the new names, and treats requests and callers as it always did."""
    app = FastAPI()

    @app.get("/health")
    @app.get("/work")
    def answer() -> None: ...

    with pytest.warns(DeprecationWarning, match="now called trace_only_failures= and trust_caller="):
        telemetry.instrument(app, quiet=["/health"], honours=lambda header: header == "yes")
    caller = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    with serve(app) as url, telemetry.suppress_instrumentation():
        httpx.get(f"{url}/health")
        httpx.get(f"{url}/work", headers=caller)
        httpx.get(f"{url}/work", headers={**caller, "Authorization": "yes"})

    begun, continued = spans.settled()
    assert (begun.name, begun.parent) == ("GET /work", None)
    assert (continued.name, continued.parent and f"{continued.parent.span_id:016x}") == ("GET /work", "cd" * 8)
