"""Require the keys for access; on loopback everyone may read the pages."""

from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from telemetry.viewer.settings import ViewerSettings

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


Keys = Depends(require_keys)
KeysUnlessLoopback = Depends(require_keys_unless_loopback)
