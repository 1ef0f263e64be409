"""Write http.md from the OpenAPI description of the service and the events of its streams: `make docs`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from app import schema

PAGE = Path(__file__).with_name("http.md")
OPENAPI = Path(__file__).parents[1] / "tests" / "app" / "openapi.json"
HEAD = """\
# The HTTP interface of the service

Written by `make docs`. `GET /openapi.json` is the complete description; the [client](client.md) speaks it for Python
programs. Paths without an agent's name use the first agent.

- **Who calls**: with `AUTH_SECRET`, `Authorization: Bearer` and the secret itself or a JWT signed with it (HS256); its
  `sub` is the user. A caller with the secret names the user in `X-User-Id`.
- **Traces**: a trusted caller's `traceparent` is continued. Each response has its trace in `traceresponse`.
- **Errors**: 4xx and 5xx have a JSON body with `detail`, a sentence, and `trace_id`. 429 and 503 say in `Retry-After`
  after how many seconds to try again.
"""
# What routes with an agent's name repeat.
AGENT = "/{agent_id}"


def page() -> str:
    """Return the page."""
    api = json.loads(OPENAPI.read_text())
    routes = ["## Routes\n", "| route | body | answer | |", "|---|---|---|---|", *_routes(api), ""]
    bodies = [line for name in _bodies(api) for line in _fields(name, api["components"]["schemas"][name])]
    events = ["## Events of a stream\n", _EVENTS, "| event | |", "|---|---|", *_events(), ""]
    return "\n".join([HEAD, *routes, "## Bodies\n", *bodies, *events])


_EVENTS = """\
`POST /stream` answers with server-sent events, each with an `id` and a JSON object as its data, whose `type` is one of
these. The data of the last event is `[DONE]`. Skip types that you do not know: there may be more.
"""


def _routes(api: dict[str, Any]) -> Iterator[str]:
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            if path.startswith(AGENT) and method in api["paths"].get(path.removeprefix(AGENT), {}):
                continue
            agent = f" and `{AGENT}{path}`" if method in api["paths"].get(AGENT + path, {}) else ""
            codes = " ".join(code for code in route["responses"] if code.isdigit() and code != "422")
            about = route["description"].split("\n\n")[0].replace("\n", " ")
            yield f"| `{method.upper()} {path}`{agent} | {_body(route)} | {codes} | {about} |"


def _body(route: dict[str, Any]) -> str:
    content = route.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    if reference:
        name = reference.rsplit("/", 1)[1]
        return f"[`{name}`](#{name.lower()})"
    return " or ".join(f"`{kind}`" for kind in content)


def _bodies(api: dict[str, Any]) -> list[str]:
    named = re.findall(r"\(#(\w+)\)", "\n".join(_routes(api)))
    names = {name.lower(): name for name in api["components"]["schemas"]}
    return [names[name] for name in dict.fromkeys(named)]


def _fields(name: str, model: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n\n{model['description']}\n\n| field | type | |\n|---|---|---|"
    for field, about in model["properties"].items():
        needed = "required" if field in model.get("required", []) else ""
        said = "; ".join(part for part in (needed, about.get("description", "")) if part)
        yield f"| `{field}` | {_kind(about)} | {said} |"
    yield ""


def _kind(about: dict[str, Any]) -> str:
    kinds = [option.get("type", "object") for option in about.get("anyOf", [about])]
    return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))


def _events() -> Iterator[str]:
    union = get_args(schema.StreamEvent)[0]
    for model in get_args(union):
        assert issubclass(model, BaseModel)  # noqa: S101 - the union has nothing else
        kind = get_args(model.model_fields["type"].annotation)[0]
        fields = ", ".join(f"`{name}`" for name in model.model_fields if name != "type")
        about = (model.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
        yield f"| `{kind}` | {about} Fields: {fields}. |"


if __name__ == "__main__":
    PAGE.write_text(page())
