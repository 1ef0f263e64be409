"""The sink as a measured process sees it."""

import json
from dataclasses import dataclass
from urllib.request import ProxyHandler, build_opener

_direct = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Backend:
    """Where spans go, and what has come there."""

    endpoint: str

    def counted(self) -> dict[str, int]:
        """Return the bytes, before and after compression, and the spans since it was last asked."""
        with _direct.open(f"{self.endpoint}/counted") as answer:
            return json.loads(answer.read())
