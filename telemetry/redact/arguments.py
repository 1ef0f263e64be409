"""Command lines that are lists of arguments: what an argument is, the one before it says."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from telemetry.redact.patterns import is_variable

_CURL = re.compile(r"(?:.*[/\\])?curl(?:\.exe)?")
_USER = re.compile(r"-[uU]|--(?:proxy-)?user")
_LOGIN = re.compile(r"(?P<option>-[uU]|--(?:proxy-)?user=|)[^:\s]*:(?P<password>.+)", re.DOTALL)


def without_logins(arguments: Sequence[Any]) -> Sequence[Any]:
    """Return a list without the logins that curl is given in it."""
    start = next((at for at, each in enumerate(arguments) if _is_curl(each)), None)
    return arguments if start is None else [*arguments[:start], *_without_logins(arguments[start:])]


def fields_without_logins(fields: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return fields without the logins in their lists, where one of them names curl as the program of these."""
    if not any(map(_is_curl, fields.values())):
        return fields
    return {name: _without_logins(each) if isinstance(each, (list, tuple)) else each for name, each in fields.items()}


def _without_logins(arguments: Sequence[Any]) -> list[Any]:
    return [_hidden(before, each) for before, each in zip((None, *arguments), arguments, strict=False)]


def _hidden(before: Any, argument: Any) -> Any:
    found = _LOGIN.fullmatch(argument) if isinstance(argument, str) else None
    if not found or is_variable(found["password"]):
        return argument
    is_given = bool(found["option"]) or (isinstance(before, str) and _USER.fullmatch(before))
    return f"{found['option']}[redacted login]" if is_given else argument


def _is_curl(item: Any) -> bool:
    return isinstance(item, str) and bool(_CURL.fullmatch(item))
