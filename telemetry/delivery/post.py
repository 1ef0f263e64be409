"""One request to the backend, and what its answer means."""

import gzip
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice

import requests
from requests.auth import AuthBase

from telemetry.settings import Settings

# Level 1 leaves a fifth more bytes of spans than level 6, for two fifths of its time.
GZIP_LEVEL = 1
# An answer that asks for more patience than this is not believed.
LONGEST_RETRY_AFTER_S = 3600.0

_LATER = {408, 425, 429, 502, 503, 504}
_POISON = {400, 413, 422}


@dataclass(frozen=True)
class Answer:
    """What the backend said, or that it said nothing (status None)."""

    status: int | None
    text: str = ""
    retry_after_s: float = 0.0
    # A login page or a proxy's notice: whoever answers 200 with one has not taken anything.
    is_page: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the backend has the spans now."""
        return self.status is not None and 200 <= self.status < 300 and not self.is_page

    @property
    def blames_content(self) -> bool:
        """Whether it refuses this batch and might take another one."""
        return self.status in _POISON

    @property
    def may_blame_content(self) -> bool:
        """Whether what it chokes on may be in the batch: a collector turns a 413 into a 500."""
        return self.blames_content or self.status == 500

    @property
    def blames_settings(self) -> bool:
        """Whether only a person can help: wrong keys, wrong path."""
        return (
            self.status is not None
            and self.status < 500
            and not (self.accepted or self.blames_content or self.status in _LATER)
        )

    def __str__(self) -> str:
        return self.text if self.status is None else f"{self.status} {self.text}".strip()


class Poster:
    """Posts export requests to the backend of these settings, or to another address with the same keys."""

    def __init__(self, settings: Settings, endpoint: str | None = None) -> None:
        self._endpoint = endpoint or settings.endpoint or ""
        self._timeout = settings.timeout
        self._gzip = settings.compression == "gzip"
        self._session = requests.Session()
        self._session.auth = _Headers()
        self._session.headers.update(settings.headers)
        self._session.headers["Content-Type"] = "application/x-protobuf"
        if self._gzip:
            self._session.headers["Content-Encoding"] = "gzip"
        self._session.verify = settings.certificate or True
        if settings.client_certificate:
            certificate, key = settings.client_certificate, settings.client_key
            self._session.cert = (certificate, key) if key else certificate

    def __call__(self, body: bytes) -> Answer:
        """Return the answer to one request; never raises."""
        data = gzip.compress(body, GZIP_LEVEL, mtime=0) if self._gzip else body
        try:
            with self._session.post(
                self._endpoint, data=data, timeout=self._timeout, allow_redirects=False, stream=True
            ) as response:
                return _read(response)
        except requests.RequestException as error:
            return Answer(None, _sentence(error))
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, the spans stay where they are
            return Answer(None, f"{type(error).__name__}: {error}")


class _Headers(AuthBase):
    """Keeps requests from taking a password out of ~/.netrc, over the keys in the headers."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _read(response: requests.Response) -> Answer:
    # An answer that breaks off is none: rather twice than lost.
    body = b"".join(islice(response.iter_content(4096), 16))
    is_page = response.ok and is_html(response.headers.get("Content-Type"))
    text = "" if response.ok else body.decode("utf-8", "replace") or response.reason
    return Answer(
        response.status_code,
        "with a web page" if is_page else _line(text),
        retry_after(response.headers.get("Retry-After")),
        is_page,
    )


def is_html(content_type: str | None) -> bool:
    """Return whether it is a page for people, which no backend answers to spans or scores."""
    return (content_type or "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, 0 without one that can be believed."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value or "").timestamp() - time.time()
        except ValueError:
            seconds = 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else 0.0


def _sentence(error: requests.RequestException) -> str:
    match error:
        case requests.exceptions.SSLError():
            return f"TLS failed: {_cause(error)}"
        case requests.exceptions.ConnectTimeout() | requests.exceptions.ReadTimeout():
            return "no answer in time"
        case requests.ConnectionError():
            return f"no connection: {_cause(error)}"
    return f"{type(error).__name__}: {_cause(error)}"


def _cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return _line(f"{type(error).__name__}: {error}")


def _line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text[:300]).split())
