"""What the documents say is true: commands run, links lead somewhere, every variable is listed."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from dotenv import dotenv_values
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

import app.demo.settings
import app.settings
import telemetry.settings
import telemetry.viewer.settings
import ui.settings
from docs.settings import page as settings_page
from tests.processes import ROOT, free_port, start

DOCUMENTS = [*(path.name for path in ROOT.glob("*.md")), *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
# Their code needs nothing around it; that of others is part of something larger.
RUN = ["README.md", "docs/adopt.md", "docs/guides.md", "docs/quickstart.md", "docs/telemetry.md"]
ROOMS = ("telemetry", "app", "ui", "tests", "docs", "bench", "otel-collector", "locks")
ENV = {"PATH": os.environ["PATH"]}
MODELS: list[type[BaseSettings]] = [
    app.demo.settings.DemoSettings,
    app.settings.ServiceSettings,
    telemetry.settings.Settings,
    telemetry.viewer.settings.ViewerSettings,
    ui.settings.Settings,
]
FOREIGN = {"OPENAI_API_KEY"}  # read by the model's own client
# Second names of variables that are listed.
OTHER_NAMES = re.compile(
    r"LANGFUSE_(BASE_URL|SAMPLE_RATE|TRACING_ENVIRONMENT)|OTEL_EXPORTER_OTLP_TRACES_(?!ENDPOINT)\w+"
)


def text(document: str) -> str:
    return (ROOT / document).read_text()


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(document), re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[str]:
    return [line for block in blocks(document, "sh") for line in block.splitlines() if line.strip()]


COMMANDS = [(document, command) for document in DOCUMENTS for command in commands(document)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `python -m app`, as the README starts it."""
    port = free_port()
    env = {"PORT": str(port), "DATA_DIR": str(tmp_path_factory.mktemp("data")), "LANGFUSE_TRACING": "false"}
    with start([sys.executable, "-m", "app"], env, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(("document", "command"), [c for c in COMMANDS if not c[1].startswith("curl")])
def test_every_command_is_real(document: str, command: str) -> None:
    """A target that make knows, or a module that runs."""
    match shlex.split(command):
        case ["make", target]:
            done = subprocess.run(["make", "-n", target], cwd=ROOT, env=ENV, capture_output=True, timeout=120)
            assert done.returncode == 0, done.stderr
        case [".venv/bin/python", "-m", module]:
            assert find_spec(f"{module}.__main__")
        case [".venv/bin/python", "-m", "telemetry" | "app" as module, *words]:
            asked = [sys.executable, "-m", module, *words, "--help"]
            done = subprocess.run(asked, cwd=ROOT, env=ENV, capture_output=True, timeout=120)
            assert done.returncode == 0, done.stderr
        case _:
            pytest.fail(f"{document} tells people to run {command}: try it here")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's requests are made with curl")
@pytest.mark.parametrize("command", [command for _, command in COMMANDS if command.startswith("curl")])
def test_every_request_is_answered(command: str, service: str) -> None:
    """The requests of the README work as they stand against a service that has just been started."""
    request = shlex.split(command.replace("http://127.0.0.1:8080", service))
    done = subprocess.run([*request, "-sS", "--fail"], env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_stream_of_the_readme_is_answered_to_its_end(service: str) -> None:
    """Not only the first bytes come."""
    answer = httpx.post(f"{service}/stream", json={"message": "What is 12*34?"}, timeout=120, trust_env=False)
    assert "408" in answer.text
    assert answer.text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("code", [code for document in RUN for code in blocks(document, "python")])
def test_every_example_runs(code: str) -> None:
    """Code of the README and of the public face runs as it stands, with warnings as errors."""
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_piece_of_code_is_python(document: str) -> None:
    """Code that needs something around it to run is at least code, and what it imports of us is there."""
    for code in blocks(document, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("telemetry", "app"):
                module = import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_target_exists(document: str) -> None:
    """Files, modules and make targets that are named in passing are there."""
    named = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text(document), flags=re.MULTILINE | re.DOTALL))
    files = [name for name in named if re.match(rf"({'|'.join(ROOMS)})/[\w./-]+$", name)]
    assert [name for name in files if not (ROOT / name).exists()] == []
    modules = [match[1] for name in named if (match := re.match(r"(?:\S*python )?-m ((?:telemetry|app)[\w.]*)", name))]
    assert [module for module in modules if not find_spec(module)] == []
    targets = {match[1] for name in named if (match := re.match(r"(?:[A-Z_]+=\S+ )?make ([a-z-]+)", name))}
    assert targets - set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE)) == set()


def test_every_document_can_be_found() -> None:
    """The README leads to the list of pages, and that one to each page of docs."""
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"index.md"}
    assert "](docs/index.md)" in text("README.md")
    assert pages - set(re.findall(r"\]\(([^)#\s]+)", text("docs/index.md"))) == set()


def test_the_settings_page_is_current() -> None:
    """`make docs` would change nothing."""
    assert text("docs/settings.md") == settings_page()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    """Relative links and pictures exist."""
    links = re.findall(r"\]\(([^)\s]+)\)", text(document))
    relative = [link for link in links if "://" not in link and not link.startswith("#")]
    missing = [link for link in relative if not (ROOT / document).parent.joinpath(link.split("#")[0]).exists()]
    assert missing == []


def test_every_place_of_the_plan_exists() -> None:
    """Files and folders that the plan's rows name are there."""
    rows = [row.split("|")[2:4] for row in text("docs/integration-plan.md").splitlines() if row.startswith("|")]
    named = re.findall(r"`([\w./-]*[/.][\w./-]*)`", " ".join(cell for row in rows for cell in row))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_plan_is_whole() -> None:
    """All seven steps are there, and every row says where and by which test, or that it is not yet so."""
    plan = text("docs/integration-plan.md")
    assert re.findall(r"^## (\d)\.", plan, re.MULTILINE) == list("1234567")
    rows = [row.split(" | ") for row in plan.splitlines() if row.startswith("| ") and "| Plan |" not in f"|{row}"]
    assert [row for row in rows if not all(cell.strip(" |") for cell in row[:3])] == []


def test_the_example_lists_every_variable() -> None:
    """`.env.example` has every variable that the program reads, and no other."""
    listed = dotenv_values(ROOT / ".env.example")
    read = {name for model in MODELS for name in names(model) if not OTHER_NAMES.fullmatch(name)}
    assert set(listed) == read | FOREIGN
    assert set(listed.values()) == {""}


def names(model: type[BaseSettings]) -> Iterator[str]:
    prefix = model.model_config.get("env_prefix", "")
    for field, info in model.model_fields.items():
        alias = info.validation_alias or info.alias
        match alias:
            case AliasChoices(choices=choices):
                yield from (str(choice) for choice in choices)
            case str():
                yield alias
            case _:
                yield f"{prefix}{field}".upper()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".env.example"])
@pytest.mark.parametrize("name", ["PUBLIC_KEY", "SECRET_KEY", "HOST", "SAMPLING_RATE", "ENVIRONMENT", "TRACING"])
def test_the_langfuse_variables_are_told(document: str, name: str) -> None:
    """Whoever looks for a Langfuse variable finds it where they look."""
    assert f"LANGFUSE_{name}" in text(document)


def test_the_readme_has_the_plans_section() -> None:
    """The plan asks for it by name."""
    assert "\n## 🔍 Langfuse Observability: How to Enable\n" in text("README.md")


@pytest.mark.parametrize("lock", sorted((ROOT / "locks").glob("*.txt")), ids=lambda path: path.name)
def test_locks_hold_hashes_and_name_no_host(lock: Path) -> None:
    """A lock installs from any registry, by uv and by plain pip, what it was made from and nothing else."""
    locked = lock.read_text()
    assert not re.search(r"https?://|--index|--find-links|file:|^-e|agent-telemetry==", locked, re.MULTILINE)
    pinned = re.split(r"^(?=[a-z])", locked, flags=re.MULTILINE)[1:]
    assert pinned
    assert [pin.splitlines()[0] for pin in pinned if "--hash=sha256:" not in pin] == []
