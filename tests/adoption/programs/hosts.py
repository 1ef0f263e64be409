"""An agent behind a web framework, HOST; it asks a question and prints the answer."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# Each framework is in an environment of its own.

import os
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from starlette.testclient import TestClient

import telemetry
from tests.adoption.programs.langgraph_service import calculator, scripted, shown

agent = create_agent(scripted(), [calculator], name="clerk")
CONFIG: Any = {"configurable": {"thread_id": "thread-7"}, "metadata": {"user_id": "ada"}}


def ask() -> str:
    return shown(agent.invoke({"messages": [HumanMessage("What is 12*34?")]}, CONFIG))


async def ask_async() -> str:
    return shown(await agent.ainvoke({"messages": [HumanMessage("What is 12*34?")]}, CONFIG))


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(request: Any) -> Any:
        return PlainTextResponse(await ask_async())

    return Starlette(routes=[Route("/ask/{name}", answer, methods=["POST"])])


def litestar() -> Any:
    from litestar import Litestar, MediaType, post

    @post("/ask/{name:str}", media_type=MediaType.TEXT, status_code=200)
    async def answer(name: str) -> str:
        return await ask_async()

    return Litestar([answer])


def quart() -> Any:
    from quart import Quart

    app = Quart("shop")

    @app.post("/ask/<name>")
    async def answer(name: str) -> str:
        return await ask_async()

    return app


def flask() -> Any:
    from flask import Flask

    app = Flask("shop")
    app.post("/ask/<name>")(lambda name: ask())
    return app


def django() -> Any:
    import django as framework
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path

    async def answer(request: Any, name: str) -> Any:
        return HttpResponse(await ask_async())

    settings.configure(ROOT_URLCONF=(path("ask/<name>", answer),), ALLOWED_HOSTS=["*"], SECRET_KEY="key")
    framework.setup()
    return get_asgi_application()


def main() -> None:
    """Ask, and print the answer."""
    telemetry.configure("strangers-service")
    app = telemetry.instrument(globals()[os.environ["HOST"]]())
    if os.environ["HOST"] == "flask":
        print(app.test_client().post("/ask/ada").text)
        return
    with TestClient(app) as client:
        print(client.post("/ask/ada").text)


if __name__ == "__main__":
    main()
