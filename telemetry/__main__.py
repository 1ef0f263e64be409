"""`python -m telemetry doctor` examines the set-up; `python -m telemetry spool` shows and moves what waits."""

import argparse
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from telemetry import doctor, wire
from telemetry.delivery import spool_folder
from telemetry.delivery.outbox import Outbox, destination
from telemetry.settings import Settings, SettingsError, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 where all is well."""
    asked = _parser().parse_args(arguments)
    origins = _read_env_file()
    try:
        return asked.run(load_settings(), origins)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m telemetry")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("doctor", help="show the settings, send a test trace, say what is wrong").set_defaults(
        run=examine
    )
    spooled = commands.add_parser("spool", help="show what waits for the backend, and what it refused")
    spooled.set_defaults(run=show)
    what = spooled.add_subparsers()
    what.add_parser("retry", help="send the dead letters once more").set_defaults(run=retry)
    what.add_parser("purge", help="forget the dead letters").set_defaults(run=purge)
    return parser


def examine(settings: Settings, origins: dict[str, str]) -> int:
    """Print the doctor's findings; 1 if one of them is an error."""
    levels = set()
    for finding in doctor.examine(settings, origins):
        levels.add(finding.level)
        print(f"{finding.level:8}{finding.text}", flush=True)
    return int("error" in levels)


def show(settings: Settings, _: dict[str, str]) -> int:
    """Print what each file of the folder holds, and the dead letters."""
    folder = settings.spool_dir.absolute()
    ours = destination(settings)
    for path in sorted(folder.glob("*.db")):
        waiting = spool_folder.look(path)
        whose = "" if path.name.startswith(ours) else "  (for another backend)"
        if waiting is None:
            print(f"{path.stem}  cannot be read now{whose}")
            continue
        print(f"{path.stem}  {waiting.rows} spans, {waiting.size} bytes, oldest {waiting.oldest_s:.0f} s{whose}")
        for letter in spool_folder.dead_letters(path):
            print(f"  dead letter {letter.id}, {len(letter.body)} bytes: {letter.reason}")
    for path in sorted(folder.glob("*.corrupt")):
        print(f"{path.name}  could not be read and was set aside")
    return 0


def retry(settings: Settings, _: dict[str, str]) -> int:
    """Put the dead letters behind what waits, and send what can be sent now; the rest waits for the service."""
    if not settings.endpoint:
        print("There is no backend to send them to.", file=sys.stderr)
        return 2
    outbox = Outbox(settings, partial(wire.prepare_all, stages=wire.stages(settings)), interval_s=0.0)
    outbox.start()
    if outbox.spools.file is None:
        return 1
    letters = [
        (path, spool_folder.dead_letters(path))
        for path in sorted(settings.spool_dir.absolute().glob(f"{destination(settings)}-*.db"))
    ]
    for path, some in letters:
        outbox.requeue(some)
        spool_folder.forget_dead(path, some)
    outbox.close()
    print(f"{sum(len(some) for _, some in letters)} dead letters are on their way again")
    return 0


def purge(settings: Settings, _: dict[str, str]) -> int:
    """Forget the dead letters."""
    number = 0
    for path in settings.spool_dir.absolute().glob(f"{destination(settings)}-*.db"):
        letters = spool_folder.dead_letters(path)
        spool_folder.forget_dead(path, letters)
        number += len(letters)
    print(f"{number} dead letters are gone")
    return 0


def _read_env_file() -> dict[str, str]:
    """Take in .env as the service does, and return what came from it."""
    if not Path(".env").exists() or not find_spec("dotenv"):
        return {}
    from dotenv import dotenv_values

    given = {name: value for name, value in dotenv_values(".env").items() if value and name not in os.environ}
    os.environ.update(given)
    return dict.fromkeys(given, ".env")


if __name__ == "__main__":
    sys.exit(main())
