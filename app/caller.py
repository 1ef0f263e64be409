"""Who the caller is."""

import hmac
import re
from dataclasses import dataclass
from typing import Annotated

import jwt
from fastapi import Depends, Header, HTTPException, Request

from app.schema import USER_ID
from app.settings import Settings


@dataclass(frozen=True)
class Caller:
    """Somebody the service answers to; `user_id` is empty for a trusted caller who named nobody."""

    user_id: str
    trusted: bool

    def acting_for(self, claimed: str | None) -> str:
        """Return the user that a request is for; refuses a claim to be somebody else."""
        if not self.user_id and self.trusted:
            return claimed or ""
        if claimed not in (None, self.user_id):
            raise HTTPException(403, "user_id is not the caller's: leave it out, or send the caller's own.")
        return self.user_id


def bearer(authorization: str | None) -> str:
    """Return the token of an Authorization header, empty without one."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_secret(authorization: str | None, settings: Settings) -> bool:
    """Return whether the header holds the service's own secret, or nothing has to be held."""
    if settings.auth_secret is None:
        return True
    secret = settings.auth_secret.get_secret_value()
    return hmac.compare_digest(bearer(authorization).encode(), secret.encode())


def get_caller(
    request: Request,
    authorization: Annotated[str | None, Header()] = None,
    x_user_id: Annotated[str | None, Header()] = None,
) -> Caller:
    """Return who sent the request; refuses one who does not say it rightly."""
    settings: Settings = request.app.state.settings
    if settings.auth_secret is None or is_secret(authorization, settings):
        return Caller(_named(x_user_id), trusted=True)
    return Caller(_subject(bearer(authorization), settings.auth_secret.get_secret_value()), trusted=False)


def _named(header: str | None) -> str:
    # Header bytes arrive as Latin-1, whatever they are.
    try:
        name = (header or "").encode("latin-1").decode()
    except UnicodeDecodeError:
        name = "\0"
    if name and not re.fullmatch(USER_ID, name):
        raise HTTPException(422, "X-User-Id: send a name of 1 to 128 characters in UTF-8, without / and \\.")
    return name


def _subject(token: str, secret: str) -> str:
    try:
        name = jwt.decode(token, secret, algorithms=["HS256"], options={"require": ["sub"]})["sub"]
    except jwt.PyJWTError as error:
        raise _unknown() from error
    if not re.fullmatch(USER_ID, name):
        raise _unknown()
    return name


def _unknown() -> HTTPException:
    return HTTPException(
        401,
        "Send the service's secret, or a token signed with it, as Authorization: Bearer …",
        headers={"WWW-Authenticate": "Bearer"},
    )


CallerDep = Annotated[Caller, Depends(get_caller)]
