"""A loopback OpenID provider whose login is a page with a button, and whose id tokens are signed."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Annotated, Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from jwt.algorithms import RSAAlgorithm

from tests.processes import serve

KEY_ID = "k-1"


@dataclass
class Asked:
    """What the page sent a browser here with."""

    client_id: str
    redirect_uri: str
    nonce: str
    code_challenge: str


@dataclass
class OpenIDServer:
    """A running provider: where it is, who says yes there, and what it was asked."""

    claims: dict[str, str]
    client_id: str = "chat"
    client_secret: str = "the client's secret"
    url: str = ""
    key: RSAPrivateKey = field(default_factory=lambda: generate_private_key(65_537, 2048))
    codes: dict[str, Asked] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @property
    def metadata_url(self) -> str:
        return f"{self.url}/.well-known/openid-configuration"

    def id_token(self, asked: Asked) -> str:
        now = int(time.time())
        about = {"iss": self.url, "aud": asked.client_id, "nonce": asked.nonce, "iat": now, "exp": now + 300}
        return jwt.encode(self.claims | about, self.key, "RS256", {"kid": KEY_ID})

    def redeem(self, code: str, redirect_uri: str, verifier: str, client: HTTPBasicCredentials) -> Asked:
        """What the code was given for; once, and only to who asked for it."""
        asked = self.codes.pop(code, None)
        known = (client.username, client.password) == (self.client_id, self.client_secret)
        if not known or not asked or (asked.redirect_uri, asked.code_challenge) != (redirect_uri, challenge(verifier)):
            raise HTTPException(400, "invalid_grant")
        return asked


@contextmanager
def openid_server(realm: str = "", **claims: str) -> Iterator[OpenIDServer]:
    """A provider, and the claims of whoever says yes there."""
    server = OpenIDServer(claims)
    app = FastAPI()
    app.mount(realm, application(server))
    with serve(app) as address:
        server.url = f"{address}{realm}"
        yield server


def application(server: OpenIDServer) -> FastAPI:
    """The HTTP side of the provider."""
    app = FastAPI()

    @app.get("/.well-known/openid-configuration")
    def metadata(request: Request) -> dict[str, Any]:
        server.headers.append(dict(request.headers))
        return {
            "issuer": server.url,
            "authorization_endpoint": f"{server.url}/authorize",
            "token_endpoint": f"{server.url}/token",
            "jwks_uri": f"{server.url}/jwks",
            "end_session_endpoint": f"{server.url}/end",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    @app.get("/authorize")
    def authorize(
        client_id: str, redirect_uri: str, state: str, nonce: str, code_challenge: str, scope: str
    ) -> HTMLResponse:
        assert "openid" in scope.split()
        code = secrets.token_urlsafe()
        server.codes[code] = Asked(client_id, redirect_uri, nonce, code_challenge)
        yes, no = ({"code": code}, {"error": "access_denied"})
        links = [
            f'<a href="{escape(redirect_uri)}?{escape(urlencode({**answer, "state": state}))}">{word}</a>'
            for word, answer in (("I am " + server.claims["name"], yes), ("Not me", no))
        ]
        return HTMLResponse(" ".join(links))

    @app.post("/token")
    def token(
        request: Request,
        code: Annotated[str, Form()],
        redirect_uri: Annotated[str, Form()],
        code_verifier: Annotated[str, Form()],
        client: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())],
    ) -> dict[str, Any]:
        server.headers.append(dict(request.headers))
        asked = server.redeem(code, redirect_uri, code_verifier, client)
        return {"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": server.id_token(asked)}

    @app.get("/jwks")
    def jwks(request: Request) -> dict[str, Any]:
        server.headers.append(dict(request.headers))
        public = json.loads(RSAAlgorithm.to_jwk(server.key.public_key()))
        return {"keys": [public | {"kid": KEY_ID, "use": "sig", "alg": "RS256"}]}

    @app.get("/end")
    def end(id_token_hint: str, post_logout_redirect_uri: str) -> RedirectResponse:
        server.ended.append(jwt.decode(id_token_hint, options={"verify_signature": False})["sub"])
        return RedirectResponse(post_logout_redirect_uri)

    return app


def challenge(verifier: str) -> str:
    """What a verifier is announced with."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
