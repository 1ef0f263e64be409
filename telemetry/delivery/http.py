"""One request to the backend, and what its response means."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any
from weakref import WeakSet

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import Retry
from urllib3.connection import HTTPConnection
from urllib3.exceptions import InvalidHeader

from telemetry.export.redact import Redactor
from telemetry.settings import Settings

# Level 1 produces a fifth more bytes than level 6, in two fifths of the time.
GZIP_LEVEL = 1
# The longest Retry-After that is respected.
MAX_RETRY_AFTER_S = 3600.0

_RETRYABLE = {408, 425, 429, 502, 503, 504}
_PAYLOAD_ERRORS = {400, 413, 422}


@dataclass(frozen=True)
class Response:
    """A backend's response, or the lack of one (status None)."""

    status: int | None
    text: str = ""
    retry_after_s: float = 0.0
    # How many spans of an accepted request the backend has rejected; `text` says why.
    rejected: int = 0
    # The page of a login or a proxy: a 200 with one does not mean that anything was accepted.
    is_page: bool = False

    def __post_init__(self) -> None:
        # It is logged, shown and kept with what was rejected, and a backend may quote what it was sent.
        if self.text:
            object.__setattr__(self, "text", one_line(_redactor().redact_text(self.text)))

    @property
    def accepted(self) -> bool:
        """Whether the backend has accepted the data."""
        return self.status is not None and 200 <= self.status < 300 and not self.is_page

    @property
    def is_payload_error(self) -> bool:
        """Whether it rejects this request's content and might accept another one."""
        return self.status in _PAYLOAD_ERRORS

    @property
    def may_be_payload_error(self) -> bool:
        """Whether the cause may be in the content: a collector turns a 413 into a 500."""
        return self.is_payload_error or self.status == 500

    @property
    def is_config_error(self) -> bool:
        """Whether a person has to correct the cause: wrong keys, wrong path."""
        return (
            self.status is not None
            and self.status < 500
            and not (self.accepted or self.is_payload_error or self.status in _RETRYABLE)
        )

    def __str__(self) -> str:
        return self.text if self.status is None else f"{self.status} {self.text}".strip()


class HttpClient:
    """Sends requests with a limit on their total time, and trusts the certificates of the settings."""

    def __init__(self, settings: Settings) -> None:
        # Passed with each request: in requests, REQUESTS_CA_BUNDLE overrides the session's value.
        self._verify = settings.certificate or True
        self._session = requests.Session()
        self._session.auth = _HeaderAuth()
        self._deadline = _DeadlineAdapter()
        self._session.mount("http://", self._deadline)
        self._session.mount("https://", self._deadline)
        if settings.client_certificate:
            certificate, key = settings.client_certificate, settings.client_key
            self._session.cert = (certificate, key) if key else certificate

    def send(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes, seconds: float
    ) -> tuple[Response, bytes]:
        """Return the response to one request, and the beginning of its body; never raise."""
        try:
            with (
                self._deadline.within(seconds),
                self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=data,
                    timeout=seconds,
                    allow_redirects=False,
                    stream=True,
                    verify=self._verify,
                ) as response,
            ):
                # An incomplete response counts as none: a duplicate is better than a loss.
                body = b"".join(islice(response.iter_content(4096), 16))
                return _read(response, body), body
        except _DeadlineError:
            return Response(None, "no answer in time"), b""
        except requests.RequestException as error:
            return Response(None, _describe(error)), b""
        except Exception as error:  # noqa: BLE001 - whatever the transport raises, the spans stay in the store
            return Response(None, f"{type(error).__name__}: {error}"), b""


class OtlpClient:
    """Sends export requests to the backend of these settings, or to another address with the same keys."""

    def __init__(self, settings: Settings, endpoint: str | None = None) -> None:
        self._endpoint = endpoint or settings.endpoint or ""
        self._timeout = settings.timeout
        self._gzip = settings.compression == "gzip"
        encoding = {"Content-Encoding": "gzip"} if self._gzip else {}
        self._headers = {**settings.headers, "Content-Type": "application/x-protobuf", **encoding}
        self._http = HttpClient(settings)

    def post(self, body: bytes) -> Response:
        """Return the response to one request; never raise."""
        data = gzip.compress(body, GZIP_LEVEL, mtime=0) if self._gzip else body
        return self._http.send("POST", self._endpoint, self._headers, data, self._timeout)[0]


class _DeadlineError(Exception):
    """A request exceeded its total time."""


class _DeadlineAdapter(HTTPAdapter):
    """Limits the total time of a request: the timeout of requests applies to each single read."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: WeakSet[HTTPConnection] = WeakSet()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raise `_DeadlineError` if the body takes longer."""
        over = threading.Event()
        expired = threading.Event()
        timer = threading.Timer(seconds, self._shut_down, (over, expired))
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception:
            if expired.is_set():
                raise _DeadlineError from None
            raise
        finally:
            over.set()
            timer.cancel()
        if expired.is_set():
            raise _DeadlineError  # the response ended because its connection did

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a request, whose connections are known as soon as they connect."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _Known):
            members = {"known_to": self._connections}
            pool.ConnectionCls = type(pool.ConnectionCls.__name__, (_Known, pool.ConnectionCls), members)
        return pool

    def _shut_down(self, over: threading.Event, expired: threading.Event) -> None:
        expired.set()
        # A connection may be opening at this moment: its socket is shut down as soon as it exists.
        while not over.is_set():
            for connection in tuple(self._connections):
                if connection.sock:
                    with suppress(OSError):
                        socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
            over.wait(0.1)


class _Known(HTTPConnection):
    known_to: WeakSet[HTTPConnection]

    def connect(self) -> None:
        self.known_to.add(self)
        super().connect()


class _HeaderAuth(AuthBase):
    """Keeps requests from replacing the keys in the headers by a password from ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _read(response: requests.Response, body: bytes) -> Response:
    if response.ok and is_html(response.headers.get("Content-Type")):
        return Response(response.status_code, "with a web page", is_page=True)
    if response.ok and (partial := _partial_success(body)):
        rejected, reason = partial
        return Response(response.status_code, reason or "without a reason", rejected=rejected)
    text = "" if response.ok else body.decode("utf-8", "replace") or response.reason
    return Response(response.status_code, text, parse_retry_after(response.headers.get("Retry-After")))


def _partial_success(body: bytes) -> tuple[int, str] | None:
    """Return how many spans of an accepted request the backend has rejected, and why; None if none."""
    if not body:
        return None
    if body.lstrip().startswith(b"{"):
        try:
            partial = json.loads(body).get("partialSuccess") or {}
            return (
                (rejected, str(partial.get("errorMessage") or ""))
                if (rejected := int(partial["rejectedSpans"]))
                else None
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return None  # the body is not in a format of OTLP
    return (partial.rejected_spans, partial.error_message) if partial.rejected_spans > 0 else None


def is_html(content_type: str | None) -> bool:
    """Return whether the content is a web page, with which no backend answers spans or scores."""
    return (content_type or "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def parse_retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header, 0 if it is missing or invalid."""
    if not value:
        return 0.0
    try:
        return min(Retry().parse_retry_after(value), MAX_RETRY_AFTER_S)
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


@cache
def _redactor() -> Redactor:
    return Redactor()


def one_line(text: str) -> str:
    """Return the beginning of a text as one printable line."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text[:300]).split())


def _describe(error: requests.RequestException) -> str:
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    reason = one_line(f"{type(cause).__name__}: {cause}")
    match error:
        case requests.exceptions.SSLError():
            return f"TLS failed: {reason}"
        case requests.exceptions.ConnectTimeout() | requests.exceptions.ReadTimeout():
            return "no answer in time"
        case requests.ConnectionError():
            return f"no connection: {reason}"
    return f"{type(error).__name__}: {reason}"
