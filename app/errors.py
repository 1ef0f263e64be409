"""Every failure answers with a sentence and the id of its trace."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

import telemetry
from app.complaints import first_complaint


def answer_errors(app: FastAPI) -> None:
    """Make the app answer its failures this way."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(DataError, _unkept)
    app.add_exception_handler(Exception, _failed)


def answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a failure's answer."""
    trace = telemetry.current_trace()
    trace_id = trace.trace_id if trace and trace.sampled else None
    return JSONResponse({"detail": sentence, "trace_id": trace_id}, status, headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    return answer(422, first_complaint(error.errors()))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    return answer(error.status_code, _told(request, error), error.headers)


def _told(request: Request, error: HTTPException) -> str:
    # Those that the framework raises by itself, in a word or two.
    match error.status_code, error.detail:
        case 404, "Not Found":
            return f"There is nothing at {request.url.path}; /docs lists what there is."
        case 400, "There was an error parsing the body":
            return "The body is no JSON in UTF-8."
        case 405, "Method Not Allowed":
            return f"{request.url.path} does not take {request.method}, but {(error.headers or {}).get('Allow')}."
    return str(error.detail)


async def _unkept(_: Request, __: Exception) -> JSONResponse:
    return answer(422, "The database takes no such value: leave out NUL characters.")


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return answer(500, f"The service failed ({type(error).__name__}); its log says more.")
