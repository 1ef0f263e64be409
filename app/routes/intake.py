"""An OTLP endpoint for the service's own front ends, which then need no key of the backend."""

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, HTTPException, Request, Response

from app.auth import CallerDep
from telemetry.delivery.intake import accept
from telemetry.export import otlp

router = APIRouter()
PATH = "/otlp/v1/traces"
# The largest batch of spans, compressed and uncompressed.
MAX_BATCH_BYTES = 8_000_000
_MESSAGE = {
    "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
    "application/json": {"schema": {"type": "object"}},
}
OTLP_BODY = {"description": "An OTLP ExportTraceServiceRequest", "required": True, "content": _MESSAGE}
OTLP_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"description": "An OTLP ExportTraceServiceResponse", "content": _MESSAGE}
}


@router.post(PATH, response_class=Response, responses=OTLP_RESPONSE, openapi_extra={"requestBody": OTLP_BODY})
async def receive_spans(request: Request, caller: CallerDep) -> Response:
    """Accept a front end's finished spans; they are on disk once this returns."""
    if not caller.trusted:
        raise HTTPException(
            403, "Spans are accepted from front ends only: send the service's own secret as the bearer token."
        )
    media_type, encoding = request.headers.get("content-type", ""), request.headers.get("content-encoding")
    try:
        await run_sync(accept, await request.body(), media_type, encoding, MAX_BATCH_BYTES)
    except otlp.TooLarge as error:
        raise HTTPException(413, str(error)) from error
    except otlp.Malformed as error:
        raise HTTPException(400, str(error)) from error
    # An empty ExportTraceServiceResponse: everything was accepted.
    return Response(b"{}" if "json" in media_type else b"", media_type=media_type)
