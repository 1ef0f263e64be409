"""`python -m telemetry.viewer` runs the viewer until it is interrupted; with `import FILE…` it sends files to it."""

import argparse
import sys
from pathlib import Path
from typing import Any

import requests
from pydantic import ValidationError

from telemetry.settings import SettingsError, refuse_nonsense
from telemetry.settings.cli_help import describe
from telemetry.viewer.settings import ViewerSettings

ABOUT = "Take traces and scores, over OTLP and on Langfuse's paths, and show them in a browser."
HELP: Any = {
    "description": describe(ABOUT, ViewerSettings, list(ViewerSettings.model_fields)),
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}
GZIP = b"\x1f\x8b"
TIMEOUT_S = 300


def main() -> None:
    """Serve the viewer, or send files to it."""
    parser = argparse.ArgumentParser(prog="python -m telemetry.viewer", **HELP)
    add_commands(parser)
    run(parser.parse_args())


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add what the viewer can do beside serving."""
    actions = parser.add_subparsers(dest="action", title="commands", metavar="")
    sender = actions.add_parser("import", help="send files in OTLP JSON, gzip or not, to the viewer that runs")
    sender.add_argument("files", metavar="FILE", nargs="+", type=Path)


def run(arguments: argparse.Namespace) -> None:
    """Serve the viewer with the settings of the environment, or send files to it; else say why not in a sentence."""
    try:
        refuse_nonsense()
        settings = ViewerSettings()
    except SettingsError as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit("; ".join(_sentence(problem) for problem in error.errors()))
    if arguments.action == "import":
        for file in arguments.files:
            _send(file, settings)
        return
    try:
        from telemetry.server import Server
        from telemetry.viewer.app import create_app
    except ModuleNotFoundError as missing:
        sys.exit(f"The viewer needs {missing.name}, which the extra installs: pip install 'agent-telemetry[viewer]'.")
    try:
        Server(create_app(settings), settings.host, settings.port, prefix="VIEWER_").run()
    except SettingsError as error:
        sys.exit(str(error))


def _send(file: Path, settings: ViewerSettings) -> None:
    """Send a file to the viewer at the address of the settings, or end with one sentence."""
    url = f"http://{settings.host}:{settings.port}"
    try:
        body = file.read_bytes()
        with requests.Session() as client:
            client.trust_env = False
            client.auth = (settings.public_key, settings.secret_key.get_secret_value())
            encoding = {"Content-Encoding": "gzip"} if body.startswith(GZIP) else {}
            headers = {"Content-Type": "application/json", **encoding}
            response = client.post(f"{url}/api/public/otel/v1/traces", data=body, headers=headers, timeout=TIMEOUT_S)
    except OSError as error:
        reason = "no viewer answers" if isinstance(error, requests.RequestException) else error.strerror
        sys.exit(f"{file} was not sent to {url}: {reason}.")
    if not response.ok:
        sys.exit(f"{file} was refused by {url} with {response.status_code}: {response.text[:300]}")


def _sentence(problem: object) -> str:
    match problem:
        case {"loc": (str(name), *_), "msg": message}:
            return f"VIEWER_{name.upper()}: {message.removeprefix('Value error, ')}"
        case {"msg": str(message)}:
            return message.removeprefix("Value error, ")
    return str(problem)


if __name__ == "__main__":
    main()
