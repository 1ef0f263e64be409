"""The one file of a multipart body, read while it arrives."""

from collections.abc import AsyncIterator
from typing import Self

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.files.content import Refusal

# By RFC 2046.
MAX_BOUNDARY = 70


class Upload:
    """The name and the bytes of a file that is being uploaded; iterate over it once to read the bytes."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not 0 < len(options.get(b"boundary", b"")) <= MAX_BOUNDARY:
            raise Refusal(422, "Send the file as multipart/form-data, in a field named file.")
        self.name: str | None = None
        self._body = body
        self._data: list[bytes] = []
        self._field = self._value = b""
        self._disposition = b""
        self._inside = self._complete = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._on_part_begin,
                "on_header_begin": self._on_header_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    @classmethod
    async def begin(cls, content_type: str, body: AsyncIterator[bytes]) -> Self:
        """Return the upload once the file's name has arrived."""
        upload = cls(content_type, body)
        while upload.name is None and await upload._read_chunk():
            pass
        if upload.name is None:
            raise Refusal(422, "There is no file in the request: send one in a field named file.")
        return upload

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes as they arrive; refuse an incomplete body."""
        while True:
            if self._data:
                data = b"".join(self._data)
                self._data.clear()
                yield data
            elif not await self._read_chunk():
                break
        if not self._complete:
            raise Refusal(400, "The upload was cut off: send it again.")

    async def _read_chunk(self) -> bool:
        async for chunk in self._body:
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise Refusal(422, "The request is not well-formed multipart/form-data: send it again.") from error
            return True
        return False

    def _on_part_begin(self) -> None:
        self._disposition, self._inside = b"", False

    def _on_header_begin(self) -> None:
        self._field = self._value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition.decode("latin-1"))
        if b"filename" not in options:
            return
        if self.name is not None:
            raise Refusal(422, "There is more than one file in the request: send them one by one.")
        try:
            self.name = options[b"filename"].decode()
        except UnicodeDecodeError:
            raise Refusal(422, "The file's name is not in UTF-8: rename it.") from None
        self._inside = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._data.append(data[start:end])

    def _on_end(self) -> None:
        self._complete = True
