"""Whether the service lives."""

from typing import Any

from fastapi import APIRouter

import telemetry

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer without asking anybody."""
    return {"status": "ok"}


@router.get("/health/telemetry")
async def tracing() -> dict[str, Any]:
    """Return how the spans of this service fare on their way to the backend; asks neither the disk nor the network."""
    return telemetry.stats()
