"""The names that Prometheus gives to metrics and attributes, whether it scrapes them or receives them over OTLP."""

import re

_UNITS = {"s": "seconds", "ms": "milliseconds", "By": "bytes"}
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]+")


def prometheus_name(name: str, unit: str, *, is_counter: bool = False) -> str:
    """Return the name that Prometheus gives to a metric, without the suffixes of single series."""
    plain = _NOT_IN_NAMES.sub("_", name)
    suffix = _UNITS.get(unit, "")
    named = f"{plain}_{suffix}" if suffix and not plain.endswith(f"_{suffix}") else plain
    return f"{named}_total" if is_counter else named


def prometheus_label(key: str) -> str:
    """Return the name of the label that an attribute becomes."""
    return _NOT_IN_NAMES.sub("_", key)
