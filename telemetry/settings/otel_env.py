"""Check variables of the OpenTelemetry SDK that it fails on, at import or later, if their values are invalid."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from importlib.metadata import entry_points

_NAMED = {
    "OTEL_PROPAGATORS": "opentelemetry_propagator",
    "OTEL_PYTHON_CONTEXT": "opentelemetry_context",
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry_tracer_provider",
    "OTEL_PYTHON_METER_PROVIDER": "opentelemetry_meter_provider",
    "OTEL_PYTHON_LOGGER_PROVIDER": "opentelemetry_logger_provider",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "opentelemetry_resource_detector",
}
_READ_AT_IMPORT = {"OTEL_PROPAGATORS", "OTEL_PYTHON_CONTEXT"}
_LIMIT = re.compile(r"OTEL_(SPAN_|EVENT_|LINK_)?(ATTRIBUTE_|EVENT_|LINK_)(COUNT|VALUE_LENGTH)_LIMIT")
_BATCH = re.compile(r"OTEL_BSP_(MAX_QUEUE_SIZE|MAX_EXPORT_BATCH_SIZE|EXPORT_TIMEOUT)")
_PATTERNS = re.compile(r"OTEL_PYTHON_(\w+_)?EXCLUDED_URLS|OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_\w+")


def complaints(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that the SDK would fail on, and a sentence that says what to do."""
    for name, value in sorted(environ.items()):
        if value and (wrong := _wrong(name, value)):
            yield name, f"{name} {wrong}, or remove it."


def _wrong(name: str, value: str) -> str | None:
    if group := _NAMED.get(name):
        return _not_installed(group, value)
    for names, wrong in _VALUES:
        if names.fullmatch(name):
            return wrong(value)
    return None


def _not_installed(group: str, value: str) -> str | None:
    known = {"none", "*", *(each.name for each in entry_points(group=group))}
    missing = [name for name in map(str.strip, value.split(",")) if name not in known]
    return "names something that is not installed: correct it" if missing else None


def _no_limit(value: str) -> str | None:
    is_one = value.strip().lower() == "unset" or _is_number(value, at_least=0)
    return None if is_one else "is not a limit: write a whole number that is not negative"


def _no_size(value: str) -> str | None:
    return None if _is_number(value, at_least=1) else "is not a whole number above 0: write one"


def _is_number(value: str, at_least: int) -> bool:
    try:
        return int(value) >= at_least
    except ValueError:
        return False


def _no_pattern(value: str) -> str | None:
    try:
        re.compile("|".join(map(str.strip, value.split(","))))
    except re.error:
        return "is not a list of regular expressions: correct it"
    return None


_VALUES: tuple[tuple[re.Pattern[str], Callable[[str], str | None]], ...] = (
    (_LIMIT, _no_limit),
    (_BATCH, _no_size),
    (_PATTERNS, _no_pattern),
)


def _import_sdk() -> None:
    import opentelemetry.propagate
    import opentelemetry.sdk.trace  # noqa: F401 - imported for what it reads meanwhile


def _import_with(environ: MutableMapping[str, str]) -> None:
    """Import the SDK, which reads some variables meanwhile and raises a traceback for an invalid one.

    Only then are such variables removed until it is imported: they are refused in a sentence when settings are loaded.
    An empty one, which releases before 1.35 fail on, counts as unset.
    """
    read = {name for name in environ if name in _READ_AT_IMPORT or _LIMIT.fullmatch(name)}
    removed = read.intersection(name for name, _ in complaints(environ))
    if not removed:
        with suppress(ValueError):
            _import_sdk()
            return
    kept = {name: environ.pop(name) for name in removed | {name for name in read if not environ[name]}}
    try:
        _import_sdk()
    finally:
        environ.update(kept)


_import_with(os.environ)
