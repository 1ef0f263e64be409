"""The agents and models of the service, and its health."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

import telemetry
from app.agents import DEFAULT_AGENT
from app.auth import CallerDep, is_secret
from app.database.database import MAX_CONNECTIONS
from app.schema import AgentInfo, Connections, Health, ServiceInfo

router = APIRouter()
_SHOWN = {"state", "last_success", "at"}


@router.get("/info")
async def info(request: Request, _: CallerDep) -> ServiceInfo:
    """Return the agents and the models."""
    state = request.app.state
    agents = [
        AgentInfo(
            key=key,
            title=agent.title,
            description=agent.description,
            starters=list(agent.starters),
            error=state.agents.errors.get(key),
        )
        for key, agent in state.agent_table.items()
    ]
    return ServiceInfo(
        agents=agents,
        models=state.models.names,
        default_agent=DEFAULT_AGENT,
        default_model=state.models.default,
        backend=telemetry.backend(),
    )


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health(request: Request) -> Health:
    """Report that the process is running, and whether it can use its database."""
    return _health(request)


@router.get("/health/ready", responses={503: {"model": Health, "description": "The database cannot be used"}})
async def ready(request: Request, response: Response) -> Health:
    """Report whether requests can be served; 503 if the database cannot be used."""
    answer = _health(request)
    response.status_code = 200 if answer.ready else 503
    return answer


def _health(request: Request) -> Health:
    database = request.app.state.database
    connections = Connections(in_use=database.connections_in_use, most=MAX_CONNECTIONS)
    return Health(status="ok", ready=database.availability.is_usable, connections=connections)


@router.get("/health/telemetry")
async def health_of_telemetry(request: Request) -> dict[str, Any]:
    """Return figures of the delivery of spans; reads neither the disk nor the network.

    Without the service's secret, if it has one, only states, times and counts.
    """
    figures = telemetry.stats()
    is_trusted = is_secret(request.headers.get("authorization"), request.app.state.settings)
    return figures if is_trusted else _without_texts(figures)


def _without_texts(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures without addresses, folders and messages of a backend."""
    return {
        name: _without_texts(value) if isinstance(value, Mapping) else value
        for name, value in figures.items()
        if not isinstance(value, str) or name in _SHOWN
    }
