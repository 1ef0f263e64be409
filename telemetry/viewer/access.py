"""Who may use the viewer: senders by its keys, readers by a token as well, on loopback without any if none is set.

It also refuses parameters of no effect.
"""

import hmac
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from telemetry.viewer.render import page
from telemetry.viewer.settings import COOKIE, PROJECT, ViewerSettings

REPEATABLE = {"environment"}
COOKIE_S = 30 * 86_400

Credentials = Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]

router = APIRouter()


def require_keys(request: Request, credentials: Credentials) -> None:
    """Refuse requests without the public and the secret key as Basic authorization, or a token as Bearer."""
    if not (_has_keys(request, credentials) or _has_bearer(request)):
        raise HTTPException(
            401,
            "Send the viewer's public and secret key as Basic authorization.",
            {"WWW-Authenticate": 'Basic realm="viewer"'},
        )


def require_reader(request: Request, credentials: Credentials) -> None:
    """Require a token, or the keys, if there are tokens or other machines can reach the pages."""
    settings = _settings(request)
    if not settings.tokens:
        if not settings.loopback:
            require_keys(request, credentials)
    elif not (_has_cookie(request) or _has_bearer(request) or _has_keys(request, credentials)):
        # Asked for Basic, a browser would ask for a name and a password instead of showing the page.
        raise HTTPException(
            401, "Send a token of this viewer as Bearer authorization.", {"WWW-Authenticate": 'Bearer realm="viewer"'}
        )


@router.post("/token")
def take_token(
    request: Request,
    token: Annotated[str, Form(max_length=1_000)] = "",
    then: Annotated[str, Form(max_length=10_000)] = "",
) -> Response:
    """Give a browser that sends a token a cookie for it, and the page that it wanted."""
    # Only a page of ours, not an address that somebody else made up.
    then = then if then.startswith(f"/project/{PROJECT}/") else "/"
    if not _is_token(request, token.strip()):
        return page(request, "token.html", 401, message="This is not a token of this viewer.", then=then, live=0)
    response = RedirectResponse(then, 303)
    response.set_cookie(
        COOKIE,
        _cookie_of(token.strip()),
        max_age=COOKIE_S,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return response


@router.post("/sign-out")
def forget_token() -> Response:
    """Have a browser forget its token."""
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE)
    return response


def check_parameters(request: Request) -> None:
    """Refuse a parameter that is given twice but has only one value, and any parameter of a path that has none."""
    names = [name for name, _ in request.query_params.multi_items()]
    if repeated := next((name for name in names if names.count(name) > 1 and name not in REPEATABLE), None):
        raise HTTPException(400, f"Give {repeated:.50} once.")
    route = request.scope["route"]
    if names and isinstance(route, APIRoute) and not route.dependant.query_params:
        raise HTTPException(400, f"{names[0]:.50}: there is no such parameter here.")


def _has_keys(request: Request, credentials: HTTPBasicCredentials | None) -> bool:
    settings = _settings(request)
    expected = (settings.public_key, settings.secret_key.get_secret_value())
    given = (credentials.username, credentials.password) if credentials else ("", "")
    return all(_are_equal(one, other) for one, other in zip(given, expected, strict=True))


def _has_bearer(request: Request) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and _is_token(request, token.strip())


def _has_cookie(request: Request) -> bool:
    given = request.cookies.get(COOKIE, "")
    return any(_are_equal(given, _cookie_of(token.get_secret_value())) for token in _settings(request).tokens)


def _is_token(request: Request, given: str) -> bool:
    return any(_are_equal(given, token.get_secret_value()) for token in _settings(request).tokens)


def _cookie_of(token: str) -> str:
    """Return what a browser keeps, from which the token cannot be told; it is valid as long as the token is."""
    return hmac.digest(token.encode(), b"cookie of the viewer", sha256).hex()


def _are_equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _settings(request: Request) -> ViewerSettings:
    return request.app.state.settings


Keys = Depends(require_keys)
Parameters = Depends(check_parameters)
Reader = Depends(require_reader)
