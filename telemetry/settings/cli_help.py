"""The `--help` of programs that are configured by environment variables."""

import argparse
from collections.abc import Iterator, Sequence

from pydantic_settings import BaseSettings

from telemetry.settings import variables

WHERE = "docs/settings.md and .env.example list all of them."


def take_no_arguments(program: str, about: str, model: type[BaseSettings], fields: Sequence[str]) -> None:
    """Print a description of the program and these settings of its model for `--help`; refuse other arguments."""
    argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=describe(about, model, fields),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


def describe(about: str, model: type[BaseSettings], fields: Sequence[str]) -> str:
    """Return the text of `--help`: what the program does, and these settings of its model."""
    settings = "\n".join(_lines(model, fields))
    return f"{about}\n\nIt is configured by environment variables:\n{settings}\n\n{WHERE}"


def _lines(model: type[BaseSettings], fields: Sequence[str]) -> Iterator[str]:
    names = [variables(model, name)[0] for name in fields]
    width = max(17, *map(len, names))
    for name, variable in zip(fields, names, strict=True):
        field = model.model_fields[name]
        default = "" if field.default in (None, False, ()) else f" [{field.default}]"
        yield f"  {variable:<{width}} {field.description}{default}"
