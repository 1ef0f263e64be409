"""Write a turn's question, answer and outcome on the root of its trace, where backends look for them."""

from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Span

from telemetry.export.formats.error import remove_paths
from telemetry.export.formats.langfuse import LEVEL, STATUS_MESSAGE
from telemetry.export.formats.marks import SHOWN_ON_ROOT
from telemetry.otel.propagator import caller_shows_texts
from telemetry.span import cancellation, one_line


class TurnRoot:
    """The first span of a turn's trace in this process, unless that is the turn's own span.

    If the caller announces that its own span shows the turn, as a chat does, this span does not repeat it.
    """

    def __init__(self, root: Span | None, turn: Span | None) -> None:
        self._is_shown_by_caller = caller_shows_texts(root)
        self._root = None if self._is_shown_by_caller else root
        self._turn = turn
        self._shown: dict[str, None] = {}

    def set_turn(self, turn: Span) -> None:
        """Set the turn's own span, which shows what the root does not."""
        self._turn = turn
        turn.set_attribute(SHOWN_ON_ROOT, list(self._shown))

    def write(self, place: str, text: str, *, first: bool = False) -> None:
        """Write the `input` or the `output`; with `first` only if there is none yet."""
        key = f"{place}.value"
        if root := self._recording():
            if first and key in (root.attributes or {}):
                return
            root.set_attribute(key, text)
        elif not self._is_shown_by_caller:
            return
        self._shown[place] = None
        if self._turn and self._turn.is_recording():
            self._turn.set_attribute(SHOWN_ON_ROOT, list(self._shown))

    def set_outcome(self, level: str, message: str) -> None:
        """Record the outcome of a turn that did not complete; of several turns the last one counts."""
        root = self._recording()
        if root and (level != "DEFAULT" or LEVEL in (root.attributes or {})):
            root.set_attributes({LEVEL: level, STATUS_MESSAGE: message})

    def _recording(self) -> SdkSpan | None:
        root = self._root
        return root if isinstance(root, SdkSpan) and root.is_recording() else None


def queued_line(run_id: str) -> str:
    """Return the line that replaces the answer on a root whose turn runs later, in the background."""
    return f"Queued as run {run_id}: its turn has the answer."


def outcome_of(error: BaseException | None, cause: str = "") -> tuple[str, str]:
    """Return the level and the message of a turn that ended with this error, or that was cancelled for this cause."""
    if isinstance(error, Exception):
        return "ERROR", remove_paths(one_line(error))
    if error or cause:
        return "WARNING", cancellation(cause)
    return "DEFAULT", ""
