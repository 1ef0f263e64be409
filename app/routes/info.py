"""What the service offers."""

from fastapi import APIRouter, Request

import telemetry
from app.agents import DEFAULT_AGENT
from app.caller import CallerDep
from app.schema import AgentInfo, ServiceInfo

router = APIRouter()


@router.get("/info")
async def info(request: Request, _: CallerDep) -> ServiceInfo:
    """Return the agents and the models."""
    models, errors, table = request.app.state.models, request.app.state.agents.errors, request.app.state.table
    agents = [AgentInfo(key=k, description=a.description, error=errors.get(k)) for k, a in table.items()]
    return ServiceInfo(
        agents=agents,
        models=models.names,
        default_agent=DEFAULT_AGENT,
        default_model=models.default,
        backend=telemetry.backend(),
    )
