"""What others install, and what they may import from it."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import yaml
from fastapi import FastAPI

import telemetry
from bench.package import build, imported
from telemetry.testing import Recorded
from tests.processes import ROOT, UNSET, serve

PYTHONS = ("3.11", "3.12", "3.13")
COMMANDS = ("doctor", "spool", "prompts", "viewer")
# Ceilings a tenth to a fifth above today's figures, which `make bench` prints: raise them for a reason.
MAX_WHEEL_BYTES = 450_000
MAX_MODULES = 800
MAX_MODULES_OF_OURS = 115


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
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
    """The extras, the Pythons and the licence are told to installers; each extra is of use without the repository."""
    assert set(metadata.get_all("Provides-Extra", [])) == {"langfuse", "prometheus", "viewer"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    told = [line.rsplit(" :: ")[-1] for line in metadata.get_all("Classifier", []) if ":: Python :: 3." in line]
    assert tuple(told) == PYTHONS


def test_the_pythons_are_tested() -> None:
    """Each Python of the classifiers has a job in CI, beside the one that runs everything."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert {"3.11", *jobs["pythons"]["strategy"]["matrix"]["python"]} >= set(PYTHONS)


def test_what_an_index_shows_is_true(metadata: Message) -> None:
    """The summary is one line, the README is the description, and no address is invented."""
    assert metadata["Name"] == "agent-telemetry"
    assert len(metadata["Summary"]) <= 120
    assert str(metadata.get_payload()).startswith("# agent-telemetry\n")
    addresses = [*metadata.get_all("Project-URL", []), metadata["Home-page"] or ""]
    assert [url for url in addresses if "<" in url or "example" in url] == []


def test_building_twice_gives_the_same_bytes(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever builds a commit again, in another folder and at another time, gets the files that were published."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "telemetry", checkout / "telemetry", copy_function=shutil.copyfile)
    for path in checkout.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    build(tmp_path / "again", checkout)
    both = {path.name: sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}
    assert len(both) == 2
    assert {path.name: sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "again").iterdir()} == both

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for folder in ("dated", "dated again"):
        build(tmp_path / folder, checkout)
    for path in (tmp_path / "dated").iterdir():
        assert path.read_bytes() == (tmp_path / "dated again" / path.name).read_bytes()


def test_the_package_stays_small(built: Path) -> None:
    """The wheel and what `import telemetry` loads stay below their ceilings, and the extras are not imported."""
    assert next(built.glob("*.whl")).stat().st_size <= MAX_WHEEL_BYTES
    cost = imported()
    assert cost.others == []
    assert cost.modules <= MAX_MODULES
    assert cost.ours <= MAX_MODULES_OF_OURS


def test_the_console_script_has_every_command(built: Path) -> None:
    """`agent-telemetry` is what `python -m telemetry` is, under the name by which it was called."""
    wheel = zipfile.ZipFile(next(built.glob("*.whl")))
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "agent-telemetry = telemetry.__main__:main" in wheel.read(name).decode()

    code = "import sys\nfrom telemetry.__main__ import main\nsys.argv[0] = '/usr/bin/agent-telemetry'\nmain()"
    for program, called in {
        "agent-telemetry": ["-c", code],
        "python -m telemetry": ["-m", "telemetry"],
    }.items():
        done = subprocess.run(
            [sys.executable, *called, "--help"], cwd=ROOT, env=UNSET, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: {program} ")
        assert f"{{{','.join(COMMANDS)}}}" in done.stdout


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
