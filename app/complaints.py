"""What is wrong with a request, as one sentence that names the field and says what to send."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.schema import EVENT_KEY, THREAD_ID, TRACE_ID, USER_ID, VOTE_KEY

Complaint = Mapping[str, Any]

# Where pydantic says what part of a request, or which of several types it was looking at.
_NO_FIELDS = {"body", "query", "path", "header", "[key]", "bool", "float", "constrained-str"}
_PATTERNS = {
    THREAD_ID: "1 to 128 letters, digits, _ . : and -, the first of them a letter or a digit",
    USER_ID: "a name of 1 to 128 characters, without / and \\",
    VOTE_KEY: "1 to 100 letters, digits, spaces, _ . : and -, the first of them a letter or a digit",
    EVENT_KEY: "names of 1 to 40 small letters, digits and _, the first of them a letter",
    TRACE_ID: "32 hexadecimal digits in lower case",
}
_EXPECTED = {
    "string_type": "a text",
    "string_unicode": "a text; half of a surrogate pair is none",
    "string_too_short": "a text of at least {min_length} character",
    "string_too_long": "a text of at most {max_length} characters",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "dict_type": "an object",
    "model_type": "an object",
    "literal_error": "one of {expected}",
    "too_long": "at most {max_length}",
    "datetime_from_date_parsing": "a date and time, such as 2026-01-31T12:00:00Z",
}


def first_complaint(complaints: Sequence[Complaint], field: str = "") -> str:
    """Return what is wrong first with a request, or with a field of it."""
    where, first = _where(complaints[0]), complaints[0]
    if first["type"] == "json_invalid":
        return f"The body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}."
    if not where and not field:
        return "Send a JSON object as the body, with Content-Type: application/json."
    name = ".".join(filter(None, (field, *where)))
    if first["type"] == "missing":
        return f"{name}: Field required."
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such field, leave it out."
    if first["type"] == "value_error":
        return f"{name}: {first['msg'].removeprefix('Value error, ')}."
    # Of several types that would do each has its complaint.
    expected = dict.fromkeys(_expected(each) for each in complaints if _where(each) == where)
    return f"{name}: send {' or '.join(expected)}."


def _where(complaint: Complaint) -> tuple[str, ...]:
    return tuple(str(part) for part in complaint["loc"] if part not in _NO_FIELDS)


def _expected(complaint: Complaint) -> str:
    known = complaint.get("ctx", {})
    if complaint["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(known["pattern"], f"what fits {known['pattern']}")
    return _EXPECTED.get(complaint["type"], f"something else ({complaint['msg']})").format(**known)
