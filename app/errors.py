"""Every failure answers with a sentence and the id of its trace."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import telemetry


def answer_errors(app: FastAPI) -> None:
    """Make the app answer its failures this way."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)


def answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a failure's answer."""
    trace = telemetry.current_trace()
    trace_id = trace.trace_id if trace and trace.sampled else None
    return JSONResponse({"detail": sentence, "trace_id": trace_id}, status, headers)


def first_complaint(complaints: Sequence[Mapping[str, Any]], field: str = "") -> str:
    """Return what is wrong with a body, or with a field of it, as one sentence."""
    first = complaints[0]
    where = ".".join(str(part) for part in (field, *first["loc"]) if part not in ("", "body"))
    return f"{where}: {first['msg']}." if where else f"{first['msg']}."


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    return answer(422, first_complaint(error.errors()))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    return answer(error.status_code, str(error.detail), error.headers)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return answer(500, f"The service failed ({type(error).__name__}); its log says more.")
