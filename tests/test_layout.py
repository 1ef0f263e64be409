"""Who may import whom."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("telemetry", "app", "ui")
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


def import_graph(*rooms: str, root: Path = ROOT) -> dict[str, set[str]]:
    """Each file with the files that it imports, lazily and for types alone too; without the faces of the rooms."""
    graph: dict[str, set[str]] = {}
    for path in (path for room in rooms for path in sources(room, root)):
        found = {file_of(name, root) for name in imports(path, path.relative_to(root).parent.parts)}
        graph[path.relative_to(root).as_posix()] = {file for file in found if file}
    faces = {f"{room}/__init__.py" for room in rooms}
    return {file: wanted - faces for file, wanted in graph.items() if file not in faces}


def file_of(name: str, root: Path) -> str | None:
    """The file that this dotted name is in, None where it is not one of ours."""
    for end in range(name.count(".") + 1, 0, -1):
        module = "/".join(name.split(".")[:end])
        for file in (f"{module}.py", f"{module}/__init__.py"):
            if (root / file).is_file():
                return file
    return None


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other in turn, the first one again at the end; nothing where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]  # graphlib names first what is imported
    return []


def test_no_file_imports_itself_in_the_end() -> None:
    """The files can be read in an order in which each knows only those before it."""
    graph = import_graph(*ROOMS)
    assert len(graph) > 100
    assert " -> ".join(circle(graph)) == ""


def test_every_circle_is_seen(tmp_path: Path) -> None:
    """Also one through an import within a function, for types alone, or of a folder; not through a room's face."""
    room = tmp_path / "ui"
    (room / "part").mkdir(parents=True)
    (room / "__init__.py").write_text("from ui.page import show\nfrom ui import chat")
    (room / "page.py").write_text("import os, ui\ndef show():\n    from ui.part import WORDS")
    (room / "part" / "__init__.py").write_text("from .words import WORDS")
    (room / "part" / "words.py").write_text("from typing import TYPE_CHECKING\nWORDS = ''")
    (room / "chat.py").write_text("from ui import page")
    assert import_graph("ui", root=tmp_path) == {
        "ui/chat.py": {"ui/page.py"},
        "ui/page.py": {"ui/part/__init__.py"},
        "ui/part/__init__.py": {"ui/part/words.py"},
        "ui/part/words.py": set(),
    }
    assert circle(import_graph("ui", root=tmp_path)) == []

    with (room / "part" / "words.py").open("a") as file:
        file.write("\nif TYPE_CHECKING:\n    from ... import ui\n    from ..chat import Chat")
    found = circle(import_graph("ui", root=tmp_path))
    assert found[0] == found[-1]
    assert set(found) == {"ui/chat.py", "ui/page.py", "ui/part/__init__.py", "ui/part/words.py"}


def test_the_pipeline_is_a_leaf() -> None:
    """What holds the state of the process can be imported by every other file, since it imports none."""
    assert import_graph("telemetry")["telemetry/pipeline.py"] == set()
    assert [each for each in offences("telemetry", *ROOMS) if each.startswith("telemetry/pipeline.py")] == []


def test_only_the_pipeline_holds_the_state_of_the_process() -> None:
    """No other file changes its own variables while the program runs."""
    changing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ROOMS
        for path in sources(room)
        if path != ROOT / "telemetry" / "pipeline.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Global)
    ]
    assert changing == []


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
    assert files <= {"telemetry/backends/langfuse.py"}


def test_one_folder_knows_langchain() -> None:
    """A service without LangChain is traced too: what needs it stands in one folder."""
    known = offences("telemetry", "langchain", "langchain_core", "langgraph", "openinference")
    assert known
    assert [each for each in known if not each.startswith("telemetry/instrumentation/langchain/")] == []


def test_what_records_runs_and_what_delivers_spans_do_not_know_each_other() -> None:
    """Delivery takes spans from whoever makes them: it knows no turn, and LangChain's runs know no backend."""
    assert sources("telemetry/delivery")
    makers = [
        "telemetry.instrumentation.langchain",
        "telemetry.turn",
        "telemetry.span",
        "telemetry.task",
        "telemetry.heartbeat",
    ]
    assert offences("telemetry/delivery", *makers) == []
    assert sources("telemetry/instrumentation/langchain")
    assert offences("telemetry/instrumentation/langchain", "telemetry.delivery") == []


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
