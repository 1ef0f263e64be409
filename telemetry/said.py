"""JSON text in an attribute that remembers what it was joined from."""

from collections.abc import Sequence

_HEAD, _TAIL = '{"messages":', "}"


class Said(str):
    """Chat messages in OpenAI's shape, and what is new around them, as JSON; each part was serialised once.

    To every exporter it is a string. The stages of the wire do their work once for each part.
    """

    __slots__ = ("parts",)

    parts: tuple[str, ...]

    def __new__(cls, parts: Sequence[str]) -> "Said":
        """Return the parts, joined."""
        said = super().__new__(cls, "".join(parts))
        said.parts = tuple(parts)
        return said

    @property
    def messages(self) -> "Said":
        """The list alone, where these are messages under that name and nothing else."""
        alone = len(self.parts) > 2 and self.parts[0] == _HEAD and self.parts[-1] == _TAIL
        return Said(self.parts[1:-1]) if alone else self

    def beside(self, tools: Sequence[str]) -> "Said":
        """Return these messages with the definitions of the tools, each in JSON, beside them."""
        listed = [part for tool in tools for part in (",", tool)]
        return Said((_HEAD, *self.messages.parts, ',"tools":[', *listed[1:], "]", _TAIL))


def under_messages(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of an object that holds a list of messages."""
    return (_HEAD, *parts, _TAIL)
