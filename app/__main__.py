"""`python -m app` serves the agents."""

import logging
import sys
from types import FrameType

import uvicorn
from dotenv import load_dotenv

import telemetry
from app.models import ModelSettingError
from app.service import create_app
from app.settings import load_settings


class Server(uvicorn.Server):
    """A server whose open streams end at the first signal: it waits for them before its lifespan does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; the turns under way are cancelled, and their readers told so."""
        telemetry.cancel_turns("shutdown")
        super().handle_exit(sig, frame)


def main() -> int:
    """Serve until a signal says to stop; returns the exit code."""
    load_dotenv()
    _log_with_traces()
    try:
        settings = load_settings()
        telemetry.guard_logs()
        telemetry.configure("agent-api")
        app = create_app(settings)
    except (telemetry.SettingsError, ModelSettingError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the sentence is for the person who started it
        return 2
    server = Server(uvicorn.Config(app, settings.host, settings.port, log_config=None, log_level="warning"))
    server.run()
    return 0 if server.started else 1


def _log_with_traces() -> None:
    handler = logging.StreamHandler()
    known = {"otelTraceID": "0"}  # with tracing off nobody says it
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s trace=%(otelTraceID)s", defaults=known))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
