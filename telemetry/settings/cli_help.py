"""The `--help` of programs that are configured by environment variables."""

import argparse
from collections.abc import Iterator, Sequence

from pydantic_settings import BaseSettings

from telemetry.settings import variables

WHERE = "docs/settings.md and .env.example list all of them."


def take_no_arguments(program: str, about: str, model: type[BaseSettings], fields: Sequence[str]) -> None:
    """Print a description of the program and these settings of its model for `--help`; refuse other arguments."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=help_of(about, model, fields),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()


def help_of(about: str, model: type[BaseSettings], fields: Sequence[str]) -> str:
    """Return the description of a program with these settings of its model."""
    settings = "\n".join(_lines(model, fields))
    return f"{about}\n\nIt is configured by environment variables:\n{settings}\n\n{WHERE}"


def _lines(model: type[BaseSettings], fields: Sequence[str]) -> Iterator[str]:
    width = max(len(variables(model, name)[0]) for name in fields) + 1
    for name in fields:
        field = model.model_fields[name]
        default = "" if field.default in (None, False, (), "") else f" [{field.default}]"
        yield f"  {variables(model, name)[0]:{width}}{field.description}{default}"
