"""`python -m app` serves the agents; `python -m app prune` removes what is no longer used."""

import gc
import logging
import socket
import sys
from types import FrameType

from dotenv import load_dotenv

import telemetry
from app import prune
from app.models.models import ModelSettingError
from app.repeated_faults import OneTracebackPerFault
from app.service import create_app
from app.settings import ServiceSettings, load_settings
from telemetry.server import Server
from telemetry.settings.cli_help import take_no_arguments

# For how long a thread keeps the interpreter while others wait for it: by default five times as long. The threads that
# write and send spans, queries and heartbeats wait so long at each step; see docs/performance.md.
SWITCH_INTERVAL_S = 0.001


class Service(Server):
    """A server that ends its open streams at the first signal; uvicorn waits for them before it stops the app."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Cancel the running turns, so that their streams end, and begin to stop."""
        telemetry.cancel_turns("shutdown")
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then exempt what it consists of from garbage collection.

        The modules alone are hundreds of thousands of objects: to visit them takes a tenth of a second, in which no
        turn goes on and no span is written.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def main() -> int:
    """Serve until a signal stops it; return the exit code."""
    if sys.argv[1:2] == ["prune"]:
        return prune.main(sys.argv[2:])
    options = ("host", "port", "data_dir", "database_url", "model", "auth_secret")
    about = "Serve the agents over HTTP until a signal stops it; `python -m app prune` removes unused threads instead."
    take_no_arguments("app", about, ServiceSettings, options)
    load_dotenv()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
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
    defaults = {"otelTraceID": "0"}  # with tracing off nothing sets it
    handler.setFormatter(
        logging.Formatter("%(levelname)s %(name)s %(message)s trace=%(otelTraceID)s", defaults=defaults)
    )
    handler.addFilter(OneTracebackPerFault())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
