"""Langfuse's API for media: announce a file, upload it to the address that is returned, and report that it is there."""

import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import to_json

from telemetry.delivery.http import HttpClient, Response
from telemetry.delivery.media import Announcement
from telemetry.settings import Settings

MEDIA_PATH = "/api/public/media"
# An upload may take longer than other requests: as long as a slow line needs.
_SLOWEST_BYTES_PER_S = 100_000


class _Place(BaseModel):
    """Where to upload a file; None if it is there already."""

    model_config = ConfigDict(alias_generator=to_camel)

    media_id: str
    upload_url: str | None = None


class LangfuseMedia:
    """Sends files to Langfuse, without its SDK, whose queue forgets what it could not send."""

    def __init__(self, settings: Settings) -> None:
        self._url = f"{settings.langfuse_url}{MEDIA_PATH}"
        self._headers = {"Authorization": settings.basic_authorization, "Content-Type": "application/json"}
        self._timeout = settings.timeout
        self._api = HttpClient(settings)
        # Files are often stored elsewhere, by a server with a public certificate and without our own.
        plain = {"certificate": None, "client_certificate": None, "client_key": None}
        self._elsewhere = HttpClient(settings.model_copy(update=plain))

    def send(self, announcement: Announcement, content: bytes | None) -> Response:
        """Announce a file at its place, and upload its content unless Langfuse has it; never raise."""
        response, body = self._request("POST", self._url, announcement.model_dump(by_alias=True))
        if not response.accepted:
            return response
        try:
            place = _Place.model_validate_json(body)
        except ValidationError:
            return Response(None, "the answer to an announced file has no id")
        # Without content it was uploaded with an earlier row: only its further place was to be announced.
        if place.upload_url is None or content is None:
            return response
        return self._upload(announcement, place.media_id, place.upload_url, content)

    def _upload(self, announcement: Announcement, media_id: str, url: str, content: bytes) -> Response:
        headers = {"Content-Type": announcement.content_type}
        # As the SDK has it: Google's storage refuses what the others need.
        if "storage.googleapis.com" not in url:
            headers |= {"x-ms-blob-type": "BlockBlob", "x-amz-checksum-sha256": announcement.sha256_hash}
        began = time.monotonic()
        client = self._api if urlsplit(url).netloc == urlsplit(self._url).netloc else self._elsewhere
        seconds = self._timeout + len(content) / _SLOWEST_BYTES_PER_S
        uploaded, _ = client.send("PUT", url, headers, content, seconds)
        if not (uploaded.accepted or uploaded.is_payload_error):
            return uploaded
        report = {
            "uploadedAt": datetime.now(UTC).isoformat(),
            "uploadHttpStatus": uploaded.status,
            "uploadHttpError": None if uploaded.accepted else uploaded.text,
            "uploadTimeMs": round((time.monotonic() - began) * 1000),
        }
        reported, _ = self._request("PATCH", f"{self._url}/{media_id}", report)
        return uploaded if reported.accepted else reported

    def _request(self, method: str, url: str, content: dict[str, Any]) -> tuple[Response, bytes]:
        return self._api.send(method, url, self._headers, to_json(content), self._timeout)
