"""Write settings.md from the settings classes that the programs read: `make docs`."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import app.demo.settings
import app.settings
import telemetry.settings
import telemetry.viewer.settings
import ui.settings
from telemetry.settings import variables

PAGE = Path(__file__).with_suffix(".md")
MODELS: dict[str, type[BaseSettings]] = {
    "Tracing": telemetry.settings.Settings,
    "Service": app.settings.ServiceSettings,
    "Chat": ui.settings.Settings,
    "Viewer": telemetry.viewer.settings.ViewerSettings,
    "Demo": app.demo.settings.DemoSettings,
}
HEAD = """\
# Settings

Written by `make docs` from the classes that read them; `.env.example` lists them all. An empty variable counts as
unset. An invalid value is refused at start, in one sentence that says what to do. If a row has several names, the first
one that is set is used. A program's `--help` lists the most important settings.
"""


def page() -> str:
    """Return the page; a variable that several programs read is listed for the first of them only."""
    listed: set[str] = set()
    parts = [HEAD]
    for title, model in MODELS.items():
        lines = [line for name, line in _lines(model) if name not in listed]
        listed |= {name for name, _ in _lines(model)}
        parts.append("\n".join([f"## {title}\n", "| variable | default | |", "|---|---|---|", *lines, ""]))
    return "\n".join(parts)


def _lines(model: type[BaseSettings]) -> Iterator[tuple[str, str]]:
    for field, info in model.model_fields.items():
        names = variables(model, field)
        cell = ", ".join(f"`{name}`" for name in names)
        yield names[0], f"| {cell} | {_default(info)} | {info.description or ''} |"


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
