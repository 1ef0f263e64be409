"""Determine the user of the page: from a proxy or an identity provider, never from the address."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import streamlit as st

from app.client import Refused
from app.schema import decode_header
from ui import texts
from ui.settings import Settings

# A login leads through the provider and back to the bare address: the tab itself stores the address that was opened.
_STORE_ADDRESS = "<script>if (location.search) sessionStorage.setItem('opened', location.search)</script>"
_RESTORE_ADDRESS = """<script>
  const opened = sessionStorage.getItem("opened");
  sessionStorage.removeItem("opened");
  if (opened) location.replace(location.pathname + opened);
</script>"""


@dataclass(frozen=True)
class Visitor:
    """The user of the page; without an id if no login is configured."""

    user_id: str | None = None
    name: str | None = None
    may_log_out: bool = False


def visitor(settings: Settings) -> Visitor | None:
    """Return the user of the page, None before the login; raise `Refused` without the proxy's header."""
    if "is_logged_in" in st.user:
        return _logged_in() if st.user.is_logged_in else None
    if settings.user_id_header is None:
        return Visitor()
    user_id = st.context.headers.get(settings.user_id_header)
    if not user_id:
        raise Refused(texts.header_missing(settings.user_id_header), 401)
    try:
        name = decode_header(user_id)
    except ValueError:
        raise Refused(texts.header_unreadable(settings.user_id_header), 401) from None
    return Visitor(name, name)


def draw_login() -> None:
    """Draw a button for each provider; after the login `restore_address` opens the original address."""
    st.html(_STORE_ADDRESS, unsafe_allow_javascript=True)
    st.title(texts.PAGE_TITLE, anchor=False)
    for provider in _providers():
        label = texts.log_in_with(provider.title()) if provider else texts.LOG_IN
        st.button(label, key=f"login-{provider}", icon=":material/login:", on_click=st.login, args=(provider,))


def restore_address() -> None:
    """Open the address that the tab had before the login."""
    st.html(_RESTORE_ADDRESS, unsafe_allow_javascript=True)


def _logged_in() -> Visitor:
    # Two providers, or two realms of one, may use the same subject for different people.
    issuer, subject = urlsplit(str(st.user.get("iss") or "")), str(st.user["sub"])
    realm = quote(f"{issuer.netloc}{issuer.path.rstrip('/')}", safe=":")
    name = st.user.get("name") or st.user.get("email") or subject
    return Visitor(f"{realm}|{quote(subject, safe=':|@')}", str(name), may_log_out=True)


def _providers() -> list[str | None]:
    providers: list[str | None] = [name for name, value in st.secrets["auth"].items() if isinstance(value, Mapping)]
    return providers or [None]
