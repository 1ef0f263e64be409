"""What a program that is set up by variables says to `--help`, and to arguments."""

import argparse
from collections.abc import Iterator, Sequence

from pydantic_settings import BaseSettings

from telemetry.settings import variables

WHERE = "docs/settings.md has all of them, .env.example as well."


def take_no_arguments(program: str, about: str, model: type[BaseSettings], telling: Sequence[str]) -> None:
    """Print what the program is, with these settings of its model, where `--help` asks for it; refuse all else."""
    settings = "\n".join(_lines(model, telling))
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=f"{about}\n\nIt is set up by environment variables:\n{settings}\n\n{WHERE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()


def _lines(model: type[BaseSettings], telling: Sequence[str]) -> Iterator[str]:
    for name in telling:
        field = model.model_fields[name]
        default = "" if field.default in (None, False) else f" [{field.default}]"
        yield f"  {variables(model, name)[0]:18}{field.description}{default}"
