"""Whether the service lives."""

from fastapi import APIRouter

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer without asking anybody."""
    return {"status": "ok"}
