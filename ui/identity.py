"""Who is at the page: a proxy or an identity provider says so, the address never does."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import streamlit as st

from app.client import Refused
from ui.settings import Settings

# A login leads through the provider and back to the bare address: the tab itself remembers what it was opened on.
_REMEMBER = "<script>if (location.search) sessionStorage.setItem('opened', location.search)</script>"
_RETURN = """<script>
  const opened = sessionStorage.getItem("opened");
  sessionStorage.removeItem("opened");
  if (opened) location.replace(location.pathname + opened);
</script>"""


@dataclass(frozen=True)
class Visitor:
    """Somebody at the page; on a laptop, where nobody asks, without an id."""

    user_id: str | None = None
    name: str | None = None
    may_log_out: bool = False


def visitor(settings: Settings) -> Visitor | None:
    """Return who is at the page; None for somebody who has yet to log in."""
    if "is_logged_in" in st.user:
        return _logged_in() if st.user.is_logged_in else None
    if settings.user_id_header is None:
        return Visitor()
    user_id = st.context.headers.get(settings.user_id_header)
    if not user_id:
        raise Refused(f"The request has no {settings.user_id_header} header: open this page through its proxy.", 401)
    return Visitor(user_id, user_id)


def login() -> None:
    """Draw the way in; `come_back` ends it on the link that was opened."""
    st.html(_REMEMBER, unsafe_allow_javascript=True)
    st.title("Agent chat", anchor=False)
    for provider in _providers():
        label = f"Log in with {provider.title()}" if provider else "Log in"
        st.button(label, key=f"login-{provider}", icon=":material/login:", on_click=st.login, args=(provider,))


def come_back() -> None:
    """Have the tab open what it was opened on, where a login led away from that."""
    st.html(_RETURN, unsafe_allow_javascript=True)


def _logged_in() -> Visitor:
    # Two providers, or two realms of one, may give one subject to different people.
    issuer, subject = urlsplit(str(st.user.get("iss") or "")), str(st.user["sub"])
    realm = quote(f"{issuer.netloc}{issuer.path.rstrip('/')}", safe=":")
    shown = st.user.get("name") or st.user.get("email") or subject
    return Visitor(f"{realm}|{quote(subject, safe=':|@')}", str(shown), may_log_out=True)


def _providers() -> list[str | None]:
    named: list[str | None] = [name for name, about in st.secrets["auth"].items() if isinstance(about, Mapping)]
    return named or [None]
