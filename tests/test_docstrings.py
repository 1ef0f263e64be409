"""What the public API's docstrings show."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import telemetry
from tests.processes import ROOT, UNSET

# Of a process of its own: examples configure tracing for good.
RUN = """
    import doctest, io, json, telemetry

    def failures(test):
        said = io.StringIO()
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.write)
        return said.getvalue()

    finder = doctest.DocTestFinder()
    found = {name: finder.find(getattr(telemetry, name), name, globs={}) for name in telemetry.__all__}
    shown = {name: [test for test in tests if test.examples] for name, tests in found.items()}
    print(json.dumps({name: "".join(map(failures, tests)) for name, tests in shown.items() if tests}))
"""


def run(folder: Path, code: str = RUN) -> dict[str, str]:
    """What is wrong with the examples of each name that has some."""
    env = {**UNSET, "TELEMETRY_SPOOL_DIR": str(folder), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(tmp_path_factory.mktemp("spool"))


@pytest.mark.parametrize("name", telemetry.__all__)
def test_an_example_does_what_it_shows(name: str, results: dict[str, str]) -> None:
    """The example of each public name runs as it stands, with tracing off and nothing imported for it."""
    assert results.get(name, "") == ""


def test_examples_are_found(results: dict[str, str]) -> None:
    """Those of the functions that everybody begins with are among them."""
    assert {"configure", "instrument", "flush", "scope"} <= results.keys()


def test_a_wrong_example_is_seen(tmp_path: Path) -> None:
    """An example that shows something else fails with both."""
    wrong = RUN.replace("    finder", "    telemetry.flush.__doc__ = '>>> 1 + 1' + chr(10) + '3'\n    finder", 1)
    assert "Expected:\n    3\nGot:\n    2" in run(tmp_path, wrong)["flush"]
