"""Refuse invalid settings at start, in one sentence that names the variable and says what to do."""

import difflib
import os
from collections.abc import Mapping, MutableMapping

from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings

from telemetry.settings import otel_env


class SettingsError(ValueError):
    """An invalid setting; the message is one sentence that says what to do."""


def refuse_nonsense() -> None:
    """Raise `SettingsError` for a variable that the SDK itself would fail on."""
    _unset_empty(os.environ)
    for _, complaint in otel_env.complaints(os.environ):
        raise SettingsError(complaint)


def unusable(setting: str, error: BaseException, advice: str) -> SettingsError:
    """Return the error for a setting that names something unusable."""
    reason = (getattr(error, "strerror", None) or str(error)).strip() or type(error).__name__
    return SettingsError(f"{setting} cannot be used ({reason.splitlines()[0]}): {advice}.")


def sentence(error: ValidationError, model: type[BaseSettings]) -> str:
    """Return the first error of a settings model as one sentence that names the variable."""
    first = error.errors(include_url=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{text}."
    return f"{_set_name(model, str(first['loc'][0]))} {text[0].lower()}{text[1:]}."


def _set_name(model: type[BaseSettings], reported: str) -> str:
    # If a setting has several names, pydantic reports the first, whichever was set.
    among = next((names for names in _names(model) if reported in names), [reported])
    return next((name for name in among if os.environ.get(name)), reported)


def variables(model: type[BaseSettings], name: str) -> list[str]:
    """Return the environment variables that a setting is read from, in the order of precedence."""
    match model.model_fields[name].validation_alias:
        case AliasChoices(choices=choices):
            return [str(choice) for choice in choices]
        case str(alias):
            return [alias]
        case _:
            return [f"{model.model_config.get('env_prefix', '')}{name}".upper()]


def _names(model: type[BaseSettings]) -> list[list[str]]:
    return [variables(model, name) for name in model.model_fields]


def _unset_empty(environ: MutableMapping[str, str]) -> None:
    # The libraries that read these themselves log a warning, or a traceback, for an empty one.
    for name in [name for name, value in environ.items() if name.startswith(("OTEL_", "OPENINFERENCE_")) and not value]:
        del environ[name]


def refuse_unknown_names(environ: Mapping[str, str], model: type[BaseSettings]) -> None:
    """Raise `SettingsError` for a name that is close to one of this model's, or has our prefix but is unknown."""
    known = {name for names in _names(model) for name in names}
    for name in sorted(environ):
        if name in known or not name.startswith(("TELEMETRY_", "LANGFUSE_")):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        # Other LANGFUSE_* names belong to the SDK or to a Langfuse server on the same machine.
        if close or name.startswith("TELEMETRY_"):
            hint = f"did you mean {close[0]}?" if close else "remove it."
            raise SettingsError(f"{name} is not a setting: {hint}")
