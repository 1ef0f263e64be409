"""A chat over a WebSocket: each message is a turn with a trace of its own, linked to that of the connection.

uvicorn websocket:app
"""

import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import telemetry

app = FastAPI()
telemetry.configure("chat-service")
telemetry.instrument(app)

prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
chain = prompt | ChatOpenAI(model=os.environ.get("MODEL") or "gpt-5.5") | StrOutputParser()


@app.websocket("/chat/{thread_id}")
async def chat(socket: WebSocket, thread_id: str) -> None:
    """Answer each message."""
    await socket.accept()
    config = RunnableConfig(run_name="chat", metadata={"session_id": thread_id, "user_id": "ada"})
    try:
        while question := await socket.receive_text():
            await socket.send_text(await chain.ainvoke({"question": question}, config))
    except WebSocketDisconnect:
        pass
