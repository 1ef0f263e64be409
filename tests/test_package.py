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

import pytest

import telemetry
from tests.processes import ROOT

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


def test_the_source_distribution_holds_the_package_only(built: Path) -> None:
    """Neither tests nor the service travel with it, and no cache."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    tops = {Path(name).parts[1] for name in names}
    assert tops <= {"telemetry", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert not [name for name in names if "__pycache__" in name]


def test_what_can_be_asked_for(metadata: Message) -> None:
    """The extras, the Pythons and the licence are told to installers."""
    assert set(metadata.get_all("Provides-Extra", [])) == {"viewer", "api", "ui", "s3"}
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
