"""Errors in answers: one sentence that says what to do, and the id of the trace."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import telemetry
from app.database.availability import Availability
from app.runs.store import EngineUnusableError
from app.schema import EVENT_KEY, THREAD_ID, TRACE_ID, USER_ID, VOTE_KEY, ErrorAnswer

logger = logging.getLogger(__name__)

# When a caller may try again if the database is unavailable. A request with this response has not started.
RETRY_AFTER_S = 2

# Names in pydantic's error locations that are not fields: parts of a request, members of a union.
_NOT_FIELDS = {"body", "query", "path", "header", "[key]", "bool", "float", "constrained-str"}
_PATTERNS = {
    THREAD_ID: "1 to 128 letters, digits, _ . : and -, the first of them a letter or a digit",
    USER_ID: "a name of 1 to 128 characters, without / and \\",
    VOTE_KEY: "1 to 100 letters, digits, spaces, _ . : and -, the first of them a letter or a digit",
    EVENT_KEY: "names of 1 to 40 lower-case letters, digits and _, the first of them a letter",
    TRACE_ID: "32 hexadecimal digits in lower case",
}
_EXPECTED = {
    "string_type": "text",
    "string_unicode": "text without unpaired surrogates",
    "string_too_short": "text of at least {min_length} character",
    "string_too_long": "text of at most {max_length} characters",
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


def handle_errors(app: FastAPI) -> None:
    """Make the app respond to errors with an `ErrorAnswer`."""
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(DataError, _on_data_error)
    app.add_exception_handler(EngineUnusableError, _on_unusable_engine)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    # Innermost, so that the other middleware sees a response: an exception would end the connection.
    app.add_middleware(ErrorBoundary)


class ErrorBoundary:
    """Answers a failed request: 503 if the database is unavailable, otherwise 500, with a traceback in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception as error:
            # A response that has started cannot be replaced: closing the connection shows that it is incomplete.
            if begun or scope["type"] != "http":
                raise
            await _answer(scope["app"], error)(scope, receive, send)


def _answer(app: FastAPI, error: Exception) -> JSONResponse:
    availability: Availability = app.state.database.availability
    if availability.is_outage(error):
        availability.doubt()
        sentence = f"The database cannot be used now: try again in {RETRY_AFTER_S} s."
        return error_response(503, sentence, {"Retry-After": str(RETRY_AFTER_S)})
    telemetry.capture_exception(error)
    logger.error("a request failed", exc_info=error)
    return error_response(500, f"The service failed ({type(error).__name__}); see its log.")


def error_response(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer to a request that failed."""
    trace = telemetry.current_trace()
    trace_id = trace.trace_id if trace and trace.sampled else None
    return JSONResponse(ErrorAnswer(detail=sentence, trace_id=trace_id).model_dump(), status, headers)


def describe_error(errors: Sequence[Mapping[str, Any]], field: str = "") -> str:
    """Return pydantic's first error in a request, or in a field of it, as one sentence that says what to send."""
    first, where = errors[0], _field_path(errors[0])
    if first["type"] == "json_invalid":
        return f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}."
    if not where and not field:
        if first["type"] == "value_error":
            sentence = str(first["ctx"]["error"])
            return f"{sentence[0].upper()}{sentence[1:]}."
        return "Send a JSON object as the body, with Content-Type: application/json."
    name = ".".join(filter(None, (field, *where)))
    if first["type"] == "missing":
        return f"{name}: Field required."
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such field; remove it."
    if first["type"] == "value_error":
        return f"{name}: {first['msg'].removeprefix('Value error, ')}."
    # A field of several types has one error for each of them.
    expected = dict.fromkeys(_expected(error) for error in errors if _field_path(error) == where)
    return f"{name}: send {' or '.join(expected)}."


def _field_path(error: Mapping[str, Any]) -> tuple[str, ...]:
    # A name with brackets is a member of a union.
    return tuple(str(part) for part in error["loc"] if part not in _NOT_FIELDS and "[" not in str(part))


def _expected(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    return _EXPECTED.get(error["type"], f"something else ({error['msg']})").format(**context)


async def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    return error_response(422, describe_error(error.errors()))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    headers = error.headers
    match error.status_code, error.detail:
        # The framework's own errors have only one or two words.
        case 404, "Not Found":
            sentence = f"There is no route {request.url.path}; /docs lists all routes."
        case 400, "There was an error parsing the body":
            sentence = "The body is not JSON in UTF-8."
        case 405, "Method Not Allowed":
            headers = {"Allow": allowed_methods(request)}
            sentence = f"{request.url.path} does not allow {request.method}: use {headers['Allow']}."
        case _:
            sentence = str(error.detail)
    return error_response(error.status_code, sentence, headers)


def allowed_methods(request: Request) -> str:
    """Return the methods of the request's path; the framework knows only those of the first route."""
    paths = request.app.openapi()["paths"].items()
    allowed = {
        method for path, methods in paths if compile_path(path)[0].match(request.scope["path"]) for method in methods
    }
    return ", ".join(sorted(allowed)).upper()


async def _on_data_error(_: Request, __: Exception) -> JSONResponse:
    return error_response(422, "The database cannot store this value: remove NUL characters.")


async def _on_unusable_engine(_: Request, error: Exception) -> JSONResponse:
    return error_response(503, str(error))


async def _on_client_gone(_: Request, __: Exception) -> JSONResponse:
    # Nobody reads it.
    return error_response(400, "The body ended before its end.")
