"""The HTTP client for vendors' SDKs, with limits for the size of a response and the time to read it."""

import os
import ssl
import time
import zlib
from collections.abc import Iterator

import httpx

from telemetry.settings import Settings

# The largest response, compressed or not; a page of scores is about a tenth of it.
MAX_RESPONSE_BYTES = 8_000_000


def build_client(settings: Settings) -> httpx.Client:
    """Return a client that trusts the certificate authority of the settings in addition to the usual ones."""
    context = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE") or None)
    context.load_default_certs()
    if settings.certificate:
        context.load_verify_locations(settings.certificate)

    def read_bounded(response: httpx.Response) -> None:
        deadline = time.monotonic() + settings.timeout
        try:
            body = b"".join(_chunks(response, deadline))
        finally:
            response.close()
        # The body has been read and decompressed.
        response.headers.pop("Content-Encoding", None)
        response.stream = httpx.ByteStream(body)
        response.is_closed = False

    return httpx.Client(
        headers={"Accept-Encoding": "gzip"},
        timeout=settings.timeout,
        verify=context,
        event_hooks={"response": [read_bounded]},
    )


def _chunks(response: httpx.Response, deadline: float) -> Iterator[bytes]:
    assert isinstance(response.stream, httpx.SyncByteStream)  # noqa: S101 - the client is not an asynchronous one
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise httpx.DecodingError(f"the response is encoded as {encoding}, which was not asked for")
    unpack = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    size = 0
    for packed in response.stream:
        chunk = unpack.decompress(packed, MAX_RESPONSE_BYTES + 1) if unpack else packed
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise httpx.ReadError(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("no answer in time")
        yield chunk
