"""OTLP for our own front ends, which need no key of the backend's then."""

from anyio.to_thread import run_sync
from fastapi import APIRouter, HTTPException, Request, Response

from app.caller import CallerDep
from telemetry import otlp
from telemetry.delivery.intake import accept

router = APIRouter()
PATH = "/otlp/v1/traces"
# What a batch of spans may be, on the wire and unpacked.
MAX_BATCH = 8_000_000


@router.post(PATH)
async def intake(request: Request, caller: CallerDep) -> Response:
    """Take a front end's finished spans; they are on disk when the answer says so."""
    if not caller.trusted:
        raise HTTPException(403, "Spans are taken from front ends only: send the service's own secret as bearer.")
    kind, encoding = request.headers.get("content-type", ""), request.headers.get("content-encoding")
    try:
        await run_sync(accept, await request.body(), kind, encoding, MAX_BATCH)
    except otlp.TooLarge as error:
        raise HTTPException(413, str(error)) from error
    except otlp.Malformed as error:
        raise HTTPException(400, str(error)) from error
    # An ExportTraceServiceResponse without a word: all was taken.
    return Response(b"{}" if "json" in kind else b"", media_type=kind)
