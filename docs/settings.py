"""`make docs`: settings.md out of the settings classes, which are what the programs read."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import app.demo
import app.settings
import telemetry.settings
import telemetry.viewer.settings
import ui.settings
from telemetry.settings import variables

PAGE = Path(__file__).with_suffix(".md")
ROOMS: dict[str, type[BaseSettings]] = {
    "Tracing": telemetry.settings.Settings,
    "Service": app.settings.Settings,
    "Chat": ui.settings.Settings,
    "Viewer": telemetry.viewer.settings.Settings,
    "Demo": app.demo.Settings,
}
HEAD = """\
# Settings

Written by `make docs` from the classes that read them; `.env.example` lists them all. An empty variable is an unset
one. A value that cannot be served is refused at start, in one sentence that says what to do. Of several names in a row
the first that is set counts. A program's `--help` names those that matter most.
"""


def page() -> str:
    """Return the page; a variable that two programs read stands where it is described first."""
    told: set[str] = set()
    parts = [HEAD]
    for title, model in ROOMS.items():
        lines = [line for name, line in _lines(model) if name not in told]
        told |= {name for name, _ in _lines(model)}
        parts.append("\n".join([f"## {title}\n", "| variable | default | |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)


def _lines(model: type[BaseSettings]) -> Iterator[tuple[str, str]]:
    for field, info in model.model_fields.items():
        names = variables(model, field)
        said = ", ".join(f"`{name}`" for name in names)
        yield names[0], f"| {said} | {_default(info)} | {info.description or ''} |"


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True, validated_data={})
    value = default.get_secret_value() if isinstance(default, SecretStr) else default
    if value is None or value in ("", (), {}):
        return ""
    text = (
        ", ".join(value) if isinstance(value, tuple) else str(value).lower() if value in (True, False) else str(value)
    )
    return f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page())
