"""Processes that others start and end: a notebook's kernel, and the development server of LangGraph."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from telemetry.testing import Receiver

TIMEOUT_S = 120
RUNS = 10
AGENT = """
import telemetry
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

telemetry.configure("clerk")

async def answer(state: MessagesState):
    return {"messages": [AIMessage("It is 408.")]}

builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile(name="clerk")
"""
RUN = """
for number in range(RUNS):
    state = await graph.ainvoke({"messages": [("user", "What is 12*34?")]})
"""
# Each run is two spans.
WRITTEN = "while telemetry.stats()['process']['committed'] < 2 * RUNS: pass"
CELLS = (AGENT, f"RUNS = {RUNS}", RUN, "state['messages'][-1].text")
SEND = """
import os, time
import telemetry
telemetry.configure("next")
until = time.monotonic() + 60
while any(f"-{os.getpid()}-" not in name for name in os.listdir(os.environ["TELEMETRY_SPOOL_DIR"])):
    assert time.monotonic() < until
    time.sleep(0.05)
telemetry.shutdown()
"""


def _environment(receiver: Receiver, folder: Path) -> Mapping[str, str]:
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    return {**os.environ, **own, "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false"}


@pytest.mark.skipif(not find_spec("ipykernel"), reason="a kernel is missing: pip install ipykernel jupyter_client")
@pytest.mark.parametrize("is_killed", [False, True], ids=["shut down", "killed"])
def test_a_notebook_loses_nothing_of_finished_cells(is_killed: bool, tmp_path: Path) -> None:
    """Shut down, a kernel has sent all; killed a moment after its last cell, the next one sends what it wrote."""
    start_new_kernel: Any = import_module("jupyter_client.manager").start_new_kernel

    with Receiver() as receiver:
        env = _environment(receiver, tmp_path)
        manager, client = start_new_kernel(env=dict(env))
        try:
            replies = [
                client.execute_interactive(cell, timeout=TIMEOUT_S, output_hook=lambda _: None) for cell in CELLS
            ]
            assert [reply["content"]["status"] for reply in replies] == ["ok"] * len(CELLS)
            if is_killed:
                client.execute_interactive(WRITTEN, timeout=TIMEOUT_S)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=is_killed)
        if is_killed:
            subprocess.run([sys.executable, "-c", SEND], env=env, check=True, timeout=TIMEOUT_S)
        names = Counter(span.name for span in receiver.spans)
    assert len(names) == 2
    assert set(names.values()) == {names["answer"]} == {RUNS}


@pytest.mark.skipif(not find_spec("langgraph_api"), reason="the server is missing: pip install 'langgraph-cli[inmem]'")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_langgraph_dev_is_never_blocked_and_loses_nothing(how: signal.Signals, tmp_path: Path) -> None:
    """Its check of calls that block the event loop finds none of ours, and what ended a moment before is sent."""
    (tmp_path / "agent.py").write_text(AGENT)
    graphs = {"dependencies": ["."], "graphs": {"clerk": "./agent.py:graph"}}
    (tmp_path / "langgraph.json").write_text(json.dumps(graphs))
    port = _free_port()
    command = [Path(sys.executable).with_name("langgraph"), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    log = tmp_path / "log"
    with Receiver() as receiver, log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=_environment(receiver, tmp_path), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _until_served(f"http://127.0.0.1:{port}/ok", server, log)
            said = [_ask(f"http://127.0.0.1:{port}/runs/wait") for _ in range(RUNS)]
        finally:
            server.send_signal(how)
            server.wait(TIMEOUT_S)
        names = Counter(span.name for span in receiver.spans)
    assert said == ["It is 408."] * RUNS
    assert "Blocking" not in log.read_text()
    assert names["answer"] == RUNS, names


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _until_served(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            urlopen(url, timeout=5).close()
        except (HTTPError, URLError, OSError):
            assert server.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.2)
        else:
            return


def _ask(url: str) -> str:
    asked = {"assistant_id": "clerk", "input": {"messages": [{"role": "user", "content": "What is 12*34?"}]}}
    request = Request(url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=TIMEOUT_S) as answered:
        return json.load(answered)["messages"][-1]["content"]
