"""Chat messages as JSON text that keeps the parts it was joined from."""

from collections.abc import Sequence

_HEAD, _TAIL = '{"messages":', "}"


class MessagesJson(str):
    """Chat messages in OpenAI's format, and fields around them, as JSON; each part is serialised once.

    For exporters it is a string. Our export stages process each part once.
    """

    __slots__ = ("parts",)

    parts: tuple[str, ...]

    def __new__(cls, parts: Sequence[str]) -> "MessagesJson":
        """Return the parts, joined."""
        joined = super().__new__(cls, "".join(parts))
        joined.parts = tuple(parts)
        return joined

    @property
    def messages(self) -> "MessagesJson":
        """The list alone, if this is an object with nothing but `messages`."""
        alone = len(self.parts) > 2 and self.parts[0] == _HEAD and self.parts[-1] == _TAIL
        return MessagesJson(self.parts[1:-1]) if alone else self

    def with_tools(self, tools: Sequence[str]) -> "MessagesJson":
        """Return an object with these messages and the definitions of the tools, each in JSON."""
        listed = [part for tool in tools for part in (",", tool)]
        return MessagesJson((_HEAD, *self.messages.parts, ',"tools":[', *listed[1:], "]", _TAIL))


def under_messages(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of an object that holds a list of messages."""
    return (_HEAD, *parts, _TAIL)
