"""Require the keys for access, where on loopback everyone may read the pages, and refuse parameters of no effect."""

from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from telemetry.viewer.settings import ViewerSettings

REPEATABLE = {"environment"}

Credentials = Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]


def require_keys(request: Request, credentials: Credentials) -> None:
    """Refuse requests without the public and the secret key as Basic authorization."""
    settings: ViewerSettings = request.app.state.settings
    expected = (settings.public_key, settings.secret_key.get_secret_value())
    given = (credentials.username, credentials.password) if credentials else ("", "")
    if not all(compare_digest(a.encode(), b.encode()) for a, b in zip(given, expected, strict=True)):
        raise HTTPException(
            401,
            "Send the viewer's public and secret key as Basic authorization.",
            {"WWW-Authenticate": 'Basic realm="viewer"'},
        )


def require_keys_unless_loopback(request: Request, credentials: Credentials) -> None:
    """Require the keys only if other machines can reach the pages."""
    if not request.app.state.settings.loopback:
        require_keys(request, credentials)


def check_parameters(request: Request) -> None:
    """Refuse a parameter that is given twice but has only one value, and any parameter of a path that has none."""
    names = [name for name, _ in request.query_params.multi_items()]
    if repeated := next((name for name in names if names.count(name) > 1 and name not in REPEATABLE), None):
        raise HTTPException(400, f"Give {repeated:.50} once.")
    route = request.scope["route"]
    if names and isinstance(route, APIRoute) and not route.dependant.query_params:
        raise HTTPException(400, f"{names[0]:.50}: there is no such parameter here.")


Keys = Depends(require_keys)
Parameters = Depends(check_parameters)
KeysUnlessLoopback = Depends(require_keys_unless_loopback)
