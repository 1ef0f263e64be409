"""What the forge and those who release read is true: workflows, templates, hooks, release notes, bill of materials."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.parts import missing
from tests.processes import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
OTHERS = [ROOT / ".github" / "dependabot.yml", ROOT / ".github" / "release.yml", ROOT / ".pre-commit-config.yaml"]
TOOLS = ROOT / ".tools" / "bin"
MAKEFILE = (ROOT / "Makefile").read_text()


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", [*WORKFLOWS, *TEMPLATES, *OTHERS], ids=lambda path: path.name)
def test_it_can_be_read(path: Path) -> None:
    """It is YAML."""
    assert isinstance(yaml.safe_load(path.read_text()), dict)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_there(workflow: Path) -> None:
    """Its make targets and scripts exist."""
    runs = [shlex.split(step["run"]) for step in steps(workflow) if step.get("run", "").startswith((".ci/", "make "))]
    assert runs
    for program, *words in runs:
        assert f"\n{words[0]}:" in MAKEFILE if program == "make" else os.access(ROOT / program, os.X_OK)


def test_the_tests_run_for_each_change() -> None:
    """CI runs what `.ci/run` runs."""
    assert ".ci/run" in {step["run"].split()[0] for step in steps(ROOT / ".github/workflows/ci.yml") if "run" in step}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_digest(workflow: Path) -> None:
    """An action is a commit with its release beside it, not a tag that its owner can move."""
    used = re.findall(r"uses: (.+)", workflow.read_text())
    assert used
    assert [use for use in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_write_only_where_it_has_to(workflow: Path) -> None:
    """By default it reads; the release alone is written, by one job, and one job proves to the index who it is."""
    whole = yaml.safe_load(workflow.read_text())
    assert whole["permissions"] == {"contents": "read"}
    granted = {name: set(job["permissions"].items()) for name, job in whole["jobs"].items() if "permissions" in job}
    writes = {name: {what for what, level in each if level == "write"} for name, each in granted.items()}
    assert writes == ({"publish": {"id-token"}, "release": {"contents"}} if workflow.name == "release.yml" else {})


def test_hooks_run_what_is_checked() -> None:
    """A hook is a program of `make check`, from the same environment."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    recipe = MAKEFILE.split("\ncheck:")[1].split("\n\n")[0]
    for hook in hooks:
        program = Path(hook["entry"].split()[0])
        assert f"$(BIN)/{program.name}" in recipe
        assert (ROOT / program).exists()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder with what a release consists of."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-12-01\n\n### Fixed\n\n- A bug.\n\n"
        "## 1.2.2 - 2026-11-01\n\n- Older.\n"
    )
    return tmp_path


def notes(tag: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".ci/notes", tag], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_release_has_the_notes_of_the_changelog(release: Path) -> None:
    """They are the section of its version, and no other."""
    done = notes("v1.2.3", release)
    assert (done.returncode, done.stdout) == (0, "### Fixed\n\n- A bug.\n")


def test_a_release_that_does_not_agree_is_refused(release: Path) -> None:
    """A tag of another version, or a changelog without its section, ends the release with a sentence."""
    done = notes("v1.2.4", release)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the tag must be v1.2.3" in done.stderr

    (release / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- New.\n")
    done = notes("v1.2.3", release)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "rename 'Unreleased'" in done.stderr


@pytest.mark.parametrize("image", ["api", "ui", "viewer"])
def test_the_bill_of_materials_is_complete(image: str, tmp_path: Path) -> None:
    """It has each package of the lock, with its release and its hashes."""
    if not (TOOLS / "cyclonedx-py").exists():
        missing("the environment .tools", "make sbom")
    lock, bill = ROOT / "locks" / f"{image}.txt", tmp_path / "bill.json"
    make = [str(TOOLS / "cyclonedx-py"), "requirements", str(lock), "--pyproject", "pyproject.toml", "--no-validate"]
    subprocess.run([*make, "-o", str(bill)], cwd=ROOT, capture_output=True, timeout=120, check=True)

    listed = json.loads(bill.read_text())
    assert listed["metadata"]["component"]["name"] == "agent-telemetry"
    pins = {
        (name.lower(), version) for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE)
    }
    assert {(each["name"].lower(), each["version"]) for each in listed["components"]} == pins
    assert all(each["externalReferences"][0]["hashes"] for each in listed["components"])
