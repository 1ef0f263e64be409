"""Send the files of spans to the backend that keeps them: each once, however many spans refer to it."""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from telemetry.delivery.backoff import BackendState, Pausable
from telemetry.delivery.http import Response
from telemetry.delivery.spool import Record
from telemetry.delivery.store import MEDIA, Row, SpoolStore
from telemetry.export.media import Attachment, Field
from telemetry.lru_cache import LruCache

logger = logging.getLogger(__name__)

# How many files to remember as written, so that their content is not written again.
REMEMBERED = 4096


class Announcement(BaseModel):
    """What a backend is told of a file and of its place, by Langfuse's names."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)

    trace_id: str
    observation_id: str | None
    field: Field
    content_type: str
    content_length: int
    sha256_hash: str


def announcement_of(attachment: Attachment) -> Announcement:
    """Return what a backend is told of a file."""
    return Announcement(
        trace_id=attachment.trace_id,
        observation_id=attachment.span_id,
        field=attachment.field,
        content_type=attachment.media.content_type,
        content_length=len(attachment.media.content),
        sha256_hash=attachment.media.sha256,
    )


class MediaBackend(Protocol):
    """A backend that keeps files. It never raises."""

    def send(self, announcement: Announcement, content: bytes | None) -> Response:
        """Tell the backend where a file belongs, and upload the content if it is not there yet."""
        ...


class _Written(NamedTuple):
    """A file that is on its way, within this trace if traces may be dropped."""

    id: str
    trace_id: str


class MediaRecords:
    """Turns the files of spans into rows; the content of a file is in the first of its rows."""

    def __init__(self, *, by_trace: bool) -> None:
        self._by_trace = by_trace
        self._written: LruCache[_Written, bool] = LruCache(REMEMBERED)

    def records(self, attachments: Iterable[Attachment], ended: float) -> list[Record]:
        """Return a record for each attachment."""
        return [self._record(each, ended) for each in attachments]

    def forget(self) -> None:
        """Write the content of each file again: rows with some of them may have been dropped."""
        self._written = LruCache(REMEMBERED)

    def _record(self, attachment: Attachment, ended: float) -> Record:
        media, announcement = attachment.media, announcement_of(attachment)
        key = _Written(media.id, attachment.trace_id if self._by_trace else "")
        head = announcement.model_dump_json(by_alias=True).encode() + b"\n"
        body = head if self._written.get(key) else head + media.content
        self._written.put(key, True)
        return Record(ended, attachment.trace_id, error=False, body=body)


class MediaBatches(Pausable):
    """Sends the files of one store, one after the other; a failed one does not keep back those behind it for ever."""

    def __init__(
        self,
        store: SpoolStore,
        backend: MediaBackend,
        state: BackendState,
        on_unreadable: Callable[[SpoolStore], None],
    ) -> None:
        super().__init__()
        self.store = store
        self._backend = backend
        self._state = state
        self._on_unreadable = on_unreadable
        self._after = 0

    def send_next(self) -> float | None:
        """Send one file; return for how many seconds to send nothing, None if none has to be sent now."""
        if self.is_paused:
            return None
        rows = self.store.take(MEDIA, 0, 1, after=self._after)
        if not rows and self._after:
            self._after = 0
            return 0.0
        if not rows:
            return None
        response = self._send(rows[0])
        self._state.record_response(response)
        if response.accepted or response.is_payload_error:
            if not response.accepted:
                self._state.refused += 1
                logger.error("the backend refuses a file of a span: %s", response)
            self._state.failures = 0
            self.store.remove(rows[0])
            return 0.0
        self._after = rows[0].seq
        return self._state.back_off(response)

    def replace_unreadable(self) -> None:
        """Set the store aside."""
        self._on_unreadable(self.store)

    def _send(self, row: Row) -> Response:
        head, _, content = row.body.partition(b"\n")
        try:
            announcement = Announcement.model_validate_json(head)
        except ValidationError:
            return Response(422, "its row on disk is damaged")
        return self._backend.send(announcement, content or None)
