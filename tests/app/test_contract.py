"""The HTTP contract, as `/openapi.json` says it; `python -m tests.app.test_contract` rewrites its snapshot."""

import json
from collections import Counter
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from app.schema import ErrorAnswer
from app.service import create_app
from app.settings import ServiceSettings
from tests.service import service

SNAPSHOT = Path(__file__).with_name("openapi.json")
REWRITE = "Look at the difference; if it is meant, run: .venv/bin/python -m tests.app.test_contract"


def contract() -> dict:
    return create_app(ServiceSettings.model_validate({})).openapi()


def rendered() -> str:
    return json.dumps(contract(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_contract_is_valid() -> None:
    """Generators of clients can read it."""
    validate(contract(), cls=OpenAPIV31SpecValidator)


def test_each_change_of_the_contract_is_seen() -> None:
    """The snapshot is what the service serves: a change shows in review."""
    assert rendered().splitlines() == SNAPSHOT.read_text().splitlines(), REWRITE


def test_one_route_answers_each_request() -> None:
    """No path has two routes for one method, of which one would never be called."""
    routes = list(iter_route_contexts(create_app(ServiceSettings.model_validate({})).routes))
    served = Counter((method, route.path) for route in routes for method in route.methods or ())
    assert len(served) > 25
    assert [request for request, number in served.items() if number > 1] == []


def test_operations_have_names_of_their_own() -> None:
    """A generated client has one function for each operation, without its path in its name."""
    names = [operation["operationId"] for path in contract()["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) > 20
    assert all("__" not in name for name in names)


def test_every_operation_says_how_it_fails_and_who_may_call() -> None:
    """Failures have the shape in which they are sent; all but health and the contract itself take credentials."""
    for path, operations in contract()["paths"].items():
        for operation in operations.values():
            for status in ("422", "4XX", "5XX"):
                schema = operation["responses"][status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}
            assert bool(operation.get("security")) is not path.startswith("/health")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/invoke", {"message": 1}, 422),
        ("GET", "/threads?limit=0", None, 422),
        ("GET", "/runs/none", None, 404),
        ("GET", "/nothing", None, 404),
        ("PUT", "/info", None, 405),
        ("POST", "/files?thread_id=t", {}, 422),
    ],
)
def test_a_failure_is_sent_as_declared(tmp_path: Path, method: str, path: str, body: object, status: int) -> None:
    """What the service answers to a request that fails is an `ErrorAnswer`."""
    with service(tmp_path) as url:
        answer = httpx.request(method, url + path, json=body)
    assert answer.status_code == status
    assert ErrorAnswer.model_validate(answer.json(), extra="forbid").detail


def test_uploads_and_streams_are_described() -> None:
    """The file of an upload is a field of its body; streams and downloads are not JSON."""
    paths = contract()["paths"]
    form = paths["/files"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    for path in ("/stream", "/{agent_id}/stream"):
        assert set(paths[path]["post"]["responses"]["200"]["content"]) == {"text/event-stream"}
    assert set(paths["/runs/{run_id}/events"]["get"]["responses"]["200"]["content"]) == {"text/event-stream"}
    assert set(paths["/files/{file_id}"]["get"]["responses"]["200"]["content"]) == {"application/octet-stream", "*/*"}


def test_credentials_are_asked_for_where_a_secret_is_set() -> None:
    """Without AUTH_SECRET a client may leave them out, and the contract says so."""
    protected = ServiceSettings.model_validate({"AUTH_SECRET": "s" * 32})
    for settings, expected in (
        (ServiceSettings.model_validate({}), [{}, {"HTTPBearer": []}]),
        (protected, [{"HTTPBearer": []}]),
    ):
        assert create_app(settings).openapi()["paths"]["/info"]["get"]["security"] == expected


def test_a_refused_method_is_told_all_that_are_allowed(tmp_path: Path) -> None:
    """Also those of further routes on the same path."""
    with service(tmp_path) as url:
        answer = httpx.request("PUT", f"{url}/threads/t-1")
    assert answer.headers["allow"] == "DELETE, GET, PATCH"
    assert answer.json()["detail"] == "/threads/t-1 does not allow PUT: use DELETE, GET, PATCH."


if __name__ == "__main__":
    SNAPSHOT.write_text(rendered())
