"""`python -m app` serves the agents."""

import logging
import sys
from types import FrameType

from dotenv import load_dotenv

import telemetry
from app.models.models import ModelSettingError
from app.service import create_app
from app.settings import Settings, load_settings
from telemetry.server import Server
from telemetry.usage import take_no_arguments


class Service(Server):
    """A server whose open streams end at the first signal: it waits for them before its app does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the turns under way are cancelled, and their readers told so."""
        telemetry.cancel_turns("shutdown")
        super().handle_exit(sig, frame)


def main() -> int:
    """Serve until a signal says to stop; returns the exit code."""
    telling = ("host", "port", "data_dir", "database_url", "model", "auth_secret")
    take_no_arguments("app", "Serve the agents over HTTP, until a signal says to stop.", Settings, telling)
    load_dotenv()
    _log_with_traces()
    try:
        settings = load_settings()
        telemetry.guard_logs()
        telemetry.configure("agent-api")
        Service(create_app(settings), settings.host, settings.port).run()
    except (telemetry.SettingsError, ModelSettingError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the sentence is for the person who started it
        return 2
    return 0


def _log_with_traces() -> None:
    handler = logging.StreamHandler()
    known = {"otelTraceID": "0"}  # with tracing off nobody says it
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s trace=%(otelTraceID)s", defaults=known))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
