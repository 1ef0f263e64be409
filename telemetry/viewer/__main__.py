"""`python -m telemetry.viewer` runs the viewer until it is interrupted."""

import sys

from pydantic import ValidationError

from telemetry.settings import SettingsError, refuse_nonsense
from telemetry.settings.cli_help import take_no_arguments
from telemetry.viewer.settings import ViewerSettings

ABOUT = "Take traces and scores, over OTLP and on Langfuse's paths, and show them in a browser."


def main() -> None:
    """Take no arguments but `--help`, and serve the viewer."""
    take_no_arguments("telemetry.viewer", ABOUT, ViewerSettings, list(ViewerSettings.model_fields))
    serve()


def serve() -> None:
    """Serve the viewer with the settings of the environment, or print in one sentence why that fails."""
    try:
        refuse_nonsense()
        settings = ViewerSettings()
    except SettingsError as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit("; ".join(_sentence(problem) for problem in error.errors()))
    try:
        from telemetry.server import Server
        from telemetry.viewer.app import create_app
    except ModuleNotFoundError as missing:
        sys.exit(f"The viewer needs {missing.name}, which the extra installs: pip install 'agent-telemetry[viewer]'.")
    try:
        Server(create_app(settings), settings.host, settings.port, prefix="VIEWER_").run()
    except SettingsError as error:
        sys.exit(str(error))


def _sentence(problem: object) -> str:
    match problem:
        case {"loc": (str(name), *_), "msg": message}:
            return f"VIEWER_{name.upper()}: {message}"
        case {"msg": str(message)}:
            return message.removeprefix("Value error, ")
    return str(problem)


if __name__ == "__main__":
    main()
