"""Who may import whom, and what leaves the house as a wheel."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UI_MAY_IMPORT = {"app.client", "app.schema"}


def sources(room: str, root: Path = ROOT) -> list[Path]:
    return sorted((root / room).rglob("*.py"))


def imports(path: Path, package: Sequence[str]) -> Iterator[str]:
    """Every dotted name that a file of the package imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package[: len(package) - level + 1] if level else ()
                base = [*above, *([module] if module else [])]
                yield from (".".join([*base, name.name]) for name in names)


def within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def offences(room: str, *modules: str, but: Iterable[str] = (), root: Path = ROOT) -> list[str]:
    """Imports of these modules in the room, except those within `but`."""
    return [
        f"{path.relative_to(root)}: {name}"
        for path in sources(room, root)
        for name in imports(path, path.relative_to(root).parent.parts)
        if within(name, modules) and not within(name, but)
    ]


def test_telemetry_knows_neither_the_service_nor_the_page() -> None:
    """The pipeline can be used alone: it imports neither app nor ui."""
    assert sources("telemetry")
    assert offences("telemetry", "app", "ui", "tests") == []


def test_the_service_does_not_know_the_page() -> None:
    """Data flows one way: app does not import ui."""
    assert sources("app")
    assert offences("app", "ui", "tests") == []


def test_the_page_reaches_the_service_through_its_client_and_schema_only() -> None:
    """The chat could run on another machine: of app it imports the client and the schema."""
    assert sources("ui")
    assert offences("ui", "app", "tests", but=UI_MAY_IMPORT) == []


@pytest.mark.parametrize("room", ["app", "ui"])
def test_only_telemetry_knows_the_sdks(room: str) -> None:
    """What makes and sends spans can change in one room."""
    sdks = ["opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation"]
    assert offences(room, *sdks, "langfuse", "openinference") == []


def test_one_file_knows_the_langfuse_sdk() -> None:
    """Each vendor has one file."""
    files = {offence.split(":")[0] for offence in offences("telemetry", "langfuse")}
    assert files <= {"telemetry/langfuse.py"}


def test_one_folder_knows_langchain() -> None:
    """A service without LangChain is traced too: what needs it stands in one folder."""
    known = offences("telemetry", "langchain", "langchain_core", "langgraph", "openinference")
    assert known
    assert [each for each in known if not each.startswith("telemetry/langchain/")] == []


def test_what_records_runs_and_what_delivers_spans_do_not_know_each_other() -> None:
    """Delivery takes spans from whoever makes them: it knows no turn, and LangChain's runs know no backend."""
    assert sources("telemetry/delivery")
    makers = ["telemetry.langchain", "telemetry.turn", "telemetry.span", "telemetry.task", "telemetry.heartbeat"]
    assert offences("telemetry/delivery", *makers) == []
    assert sources("telemetry/langchain")
    assert offences("telemetry/langchain", "telemetry.delivery") == []


def test_every_way_of_importing_is_seen(tmp_path: Path) -> None:
    """Relative imports and those inside functions count too."""
    (tmp_path / "ui").mkdir()
    (tmp_path / "ui" / "page.py").write_text(
        "import app.client, langfuse as lf\n"
        "from app import schema, service\n"
        "from . import langfuse\n"
        "from .. import app\n"
        "def late():\n    from app.agents.tools import calculator\n"
    )
    assert offences("ui", "app", "langfuse", but=UI_MAY_IMPORT, root=tmp_path) == [
        "ui/page.py: langfuse",
        "ui/page.py: app.service",
        "ui/page.py: app",
        "ui/page.py: app.agents.tools.calculator",
    ]


def test_the_wheel_holds_only_telemetry(tmp_path: Path) -> None:
    """A top-level `app` would collide with other people's: the wheel is telemetry, whole and alone."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    wheel = next(tmp_path.glob("*.whl"))
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    packed = {name.as_posix() for name in names if not name.parts[0].endswith(".dist-info")}
    kept = {path.relative_to(ROOT).as_posix() for path in (ROOT / "telemetry").rglob("*") if path.is_file()}
    assert packed == {name for name in kept if "__pycache__" not in name}
