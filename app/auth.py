"""Authentication: who the caller is."""

import hmac
import re
from dataclasses import dataclass
from typing import Annotated

import jwt
from fastapi import Depends, Header, HTTPException, Request
from fastapi.security import HTTPBearer

from app.schema import USER_ID, decode_header
from app.settings import ServiceSettings


@dataclass(frozen=True)
class Caller:
    """The sender of a request; `user_id` is empty for a trusted caller that names no user."""

    user_id: str
    trusted: bool

    def acting_for(self, user_id: str | None) -> str:
        """Return the user of the request; raise 403 if its `user_id` is another user's."""
        if not self.user_id and self.trusted:
            return user_id or ""
        if user_id not in (None, self.user_id):
            raise HTTPException(403, "user_id is not the caller's: remove it, or send the caller's own.")
        return self.user_id


def bearer(authorization: str | None) -> str:
    """Return the token of an Authorization header, empty without one."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_secret(authorization: str | None, settings: ServiceSettings) -> bool:
    """Return whether the header contains the service's own secret, or the service has none."""
    if settings.auth_secret is None:
        return True
    secret = settings.auth_secret.get_secret_value()
    return hmac.compare_digest(bearer(authorization).encode(), secret.encode())


_SEND = "Send the service's secret, or a token signed with it, as Authorization: Bearer …"
_SCHEME = HTTPBearer(
    auto_error=False,
    description="If AUTH_SECRET is set: the secret itself, or a JWT signed with it (HS256); its `sub` is the user.",
)


def get_caller(
    request: Request,
    _: Annotated[object, Depends(_SCHEME)],  # for OpenAPI: credentials are optional if the service has no secret
    x_user_id: Annotated[str | None, Header(description="the user for whom a caller with the secret acts")] = None,
) -> Caller:
    """Return the sender of the request; raise 401 without valid credentials."""
    settings: ServiceSettings = request.app.state.settings
    authorization = request.headers.get("authorization")
    if settings.auth_secret is None or is_secret(authorization, settings):
        return Caller(_decode_user_id(x_user_id), trusted=True)
    address, failed = request.client.host if request.client else "", request.app.state.failed_logins
    # Callers with the secret are served before this check, because others may share the address of a front end.
    if wait_s := failed.wait_s(address):
        raise HTTPException(429, f"Too many logins failed: try again in {wait_s} s.", {"Retry-After": str(wait_s)})
    try:
        return Caller(_verify(bearer(authorization), settings), trusted=False)
    except _InvalidTokenError as error:
        failed.record(address, str(error))
        raise HTTPException(401, f"{error} {_SEND}", headers={"WWW-Authenticate": "Bearer"}) from error


def _decode_user_id(header: str | None) -> str:
    try:
        name = decode_header(header or "")
    except ValueError:
        name = "\0"
    if name and not re.fullmatch(USER_ID, name):
        raise HTTPException(422, "X-User-Id: send a name of 1 to 128 characters in UTF-8, without / and \\.")
    return name


class _InvalidTokenError(Exception):
    """A bearer token that identifies no user; the message says why, without the token."""


def _verify(token: str, settings: ServiceSettings) -> str:
    """Return the user of a token."""
    assert settings.auth_secret  # noqa: S101 - without it there are no tokens
    required = ["sub"] if settings.auth_tokens_without_exp else ["sub", "exp"]
    try:
        claims = jwt.decode(
            token, settings.auth_secret.get_secret_value(), algorithms=["HS256"], options={"require": required}
        )
    except jwt.ExpiredSignatureError as error:
        raise _InvalidTokenError("The token has expired.") from error
    except jwt.MissingRequiredClaimError as error:
        raise _InvalidTokenError(f"The token has no {error.claim}.") from error
    except jwt.PyJWTError as error:
        raise _InvalidTokenError("The bearer token is not valid." if token else "There is no bearer token.") from error
    # JSON may have half a character, which can be stored nowhere.
    if not re.fullmatch(USER_ID, claims["sub"]) or re.search("[\ud800-\udfff]", claims["sub"]):
        raise _InvalidTokenError("The token's sub is not a user id.")
    return claims["sub"]


CallerDep = Annotated[Caller, Depends(get_caller)]
