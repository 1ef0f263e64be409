"""A template and its values as a page."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry.viewer import plots
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.timeline import WIDTH


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return the page, or 304 to whoever has just this one."""
    html = _templates.get_template(template).render(**values)
    tag = f'"{hashlib.sha256(html.encode("utf-8", "replace")).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(html.encode("utf-8", "replace"), status, {"ETag": tag})


def _when(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"duration": plots.duration, "when": _when, "pretty": _pretty}
_templates.globals |= {"WIDTH": WIDTH, "PLOT": (plots.WIDTH, plots.HEIGHT), "project": PROJECT}
