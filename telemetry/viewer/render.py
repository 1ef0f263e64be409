"""A template and its values as a page."""

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from telemetry.viewer import plots
from telemetry.viewer.overview import spread
from telemetry.viewer.settings import COOKIE, PROJECT
from telemetry.viewer.timeline import WIDTH

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Return the page, or 304 if the client has this version."""
    html = _templates.get_template(template).render(
        path=request.url.path, signed_in=COOKIE in request.cookies, **values
    )
    tag = f'"{hashlib.sha256(html.encode("utf-8", "replace")).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(html.encode("utf-8", "replace"), status, {"ETag": tag})


def _when(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _ago(nanoseconds: int) -> str:
    """Return how long ago a time was, or the date if it is more than a week."""
    seconds = time.time() - nanoseconds / 1e9
    if not 0 <= seconds < 7 * 86_400:
        return _when(nanoseconds)[:16]
    return next((f"{seconds // size:.0f} {unit} ago" for size, unit in UNITS if seconds >= size), "just now")


def link(view: Mapping[str, str], **changes: str) -> str:
    """Return the query string of a view with some changes."""
    return "?" + urlencode({name: value for name, value in {**view, **changes}.items() if value})


def pretty(value: Any) -> str:
    """Return text as it is, and other values as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "duration": plots.duration,
    "when": _when,
    "ago": _ago,
    "money": plots.money,
    "pretty": pretty,
    "spread": spread,
}
_templates.globals |= {"WIDTH": WIDTH, "PLOT": (plots.WIDTH, plots.HEIGHT), "project": PROJECT, "link": link}
