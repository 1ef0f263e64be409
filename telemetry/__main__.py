"""The commands, as `agent-telemetry` and as `python -m telemetry`.

Check the set-up (`doctor`), resend waiting spans (`spool`), show traces (`viewer`), store prompts (`prompts`).
"""

import argparse
import os
import sys
from difflib import unified_diff
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from telemetry import doctor
from telemetry.backends.langfuse import NoPromptError, fetch_prompt, push_prompt, why_no_sdk
from telemetry.delivery import spool
from telemetry.delivery.writer import SpanWriter, destination
from telemetry.export.stages import build_stages, prepare_all
from telemetry.settings import Settings, SettingsError, load_settings
from telemetry.viewer import __main__ as viewer

PACKAGE = "agent-telemetry"


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit code: 0 for success."""
    parsed = _parser().parse_args(arguments)
    origins = _read_env_file()
    if parsed.command == "viewer":
        viewer.run(parsed)
        return 0
    try:
        settings = load_settings()
        if parsed.command == "prompts":
            return push(settings, parsed.folder, parsed.label, only_compare=parsed.action == "diff")
        return parsed.run(settings, origins)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    called = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(prog=PACKAGE if called.startswith(PACKAGE) else "python -m telemetry")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="show the settings, send a test trace, report problems").set_defaults(
        run=examine
    )
    spooled = commands.add_parser("spool", help="show spans that wait for the backend, and those that it rejected")
    spooled.set_defaults(run=show)
    what = spooled.add_subparsers()
    what.add_parser("retry", help="send the dead letters again").set_defaults(run=retry)
    what.add_parser("purge", help="delete the dead letters").set_defaults(run=purge)
    pushed = commands.add_parser("prompts", help="compare a folder of prompts with Langfuse, and store them there")
    pushed.add_argument("action", choices=["diff", "push"], help="diff shows what would change; push stores it as well")
    pushed.add_argument("folder", type=Path, help="a text file for each prompt, NAME.txt")
    pushed.add_argument("--label", default="production", help="the label of the versions; default: production")
    viewer.add_commands(
        commands.add_parser("viewer", help="show traces in a browser, from a local backend", **viewer.HELP)
    )
    return parser


def _version() -> str:
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:  # run from a checkout
        return f"{PACKAGE}, not installed"


def push(settings: Settings, folder: Path, label: str, *, only_compare: bool) -> int:
    """Print how the prompts of a folder differ from those of Langfuse, and store those that do."""
    if why := why_no_sdk() if settings.langfuse_url else "there are no LANGFUSE_* keys":
        print(f"Prompts cannot be stored: {why}.", file=sys.stderr)
        return 2
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text(encoding="utf-8").strip()
        try:
            before, version = fetch_prompt(settings, path.stem, label)
        except NoPromptError:
            before, version = "", 0
        if text == before:
            print(f"{path.stem}  unchanged, version {version}")
            continue
        old, new = before.splitlines(), text.splitlines()
        print("\n".join(unified_diff(old, new, f"{path.stem} version {version}", str(path), lineterm="")))
        if not only_compare:
            print(f"{path.stem}  stored as version {push_prompt(settings, path.stem, label, text)}")
    return 0


def examine(settings: Settings, origins: dict[str, str]) -> int:
    """Print the doctor's findings; return 1 if one of them is an error."""
    levels = set()
    for finding in doctor.examine(settings, origins):
        levels.add(finding.level)
        print(f"{finding.level:8}{finding.text}", flush=True)
    return int("error" in levels)


def show(settings: Settings, _: dict[str, str]) -> int:
    """Print the content of each file of the folder, and the dead letters."""
    folder = settings.spool_dir.absolute()
    ours = destination(settings)
    for path in sorted(folder.glob("*.db")):
        waiting = spool.inspect(path)
        whose = "" if path.name.startswith(ours) else "  (for another backend)"
        if waiting is None:
            print(f"{path.stem}  cannot be read now{whose}")
            continue
        files = f", {waiting.media} files of spans" if waiting.media else ""
        print(f"{path.stem}  {waiting.rows} spans{files}, {waiting.size} bytes, oldest {waiting.oldest_s:.0f} s{whose}")
        for letter in spool.read_dead_letters(path):
            print(f"  dead letter {letter.id}, {len(letter.body)} bytes: {letter.reason}")
    for path in sorted(folder.glob("*.corrupt")):
        print(f"{path.name}  could not be read and was set aside")
    return 0


def retry(settings: Settings, _: dict[str, str]) -> int:
    """Append the dead letters to the waiting spans, and send what can be sent now; the service sends the rest."""
    if not settings.endpoint:
        print("There is no backend to send them to.", file=sys.stderr)
        return 2
    writer = SpanWriter(settings, partial(prepare_all, stages=build_stages(settings)), interval_s=0.0)
    writer.start()
    if writer.spool.file is None:
        return 1
    letters = [
        (path, spool.read_dead_letters(path))
        for path in sorted(settings.spool_dir.absolute().glob(f"{destination(settings)}-*.db"))
    ]
    for path, some in letters:
        writer.requeue(some)
        spool.remove_dead_letters(path, some)
    writer.close()
    print(f"{sum(len(some) for _, some in letters)} dead letters are queued again")
    return 0


def purge(settings: Settings, _: dict[str, str]) -> int:
    """Delete the dead letters."""
    number = 0
    for path in settings.spool_dir.absolute().glob(f"{destination(settings)}-*.db"):
        letters = spool.read_dead_letters(path)
        spool.remove_dead_letters(path, letters)
        number += len(letters)
    print(f"{number} dead letters deleted")
    return 0


def _read_env_file() -> dict[str, str]:
    """Read .env as the service does, and return the names that come from it."""
    if not Path(".env").exists() or not find_spec("dotenv"):
        return {}
    from dotenv import dotenv_values

    given = {name: value for name, value in dotenv_values(".env").items() if value and name not in os.environ}
    os.environ.update(given)
    return dict.fromkeys(given, ".env")


if __name__ == "__main__":
    sys.exit(main())
