"""Adopted by others: the examples run as they stand, without `app` and `ui`; a stranger's agent is left as it is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry.sdk.trace import ReadableSpan
from streamlit.testing.v1 import AppTest
from websockets.sync.client import connect

import telemetry
from app.client import AgentClient
from telemetry.settings import Settings
from telemetry.testing import Receiver, Recorded, recording, span_tree
from tests import stranger
from tests.openai_server import OpenAIServer, openai_server
from tests.processes import ROOT, UNSET, free_port, serve, start, until
from tests.service import service
from tests.telemetry.langfuse_rules import Trace, traces, violations

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def model() -> Iterator[OpenAIServer]:
    with openai_server() as server:
        yield server


def environment(folder: Path, model: OpenAIServer, receiver: Receiver) -> dict[str, str]:
    """The variables of a program that finds `telemetry` and nothing else of this project."""
    (folder / "telemetry").symlink_to(ROOT / "telemetry")
    return {
        "PYTHONPATH": str(folder),
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": model.key,
        "LANGFUSE_HOST": receiver.endpoint,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
        "LANGFUSE_SECRET_KEY": "sk-lf-1",
        "TELEMETRY_SPOOL_DIR": str(folder / "spool"),
    }


@contextmanager
def example(name: str, folder: Path, model: OpenAIServer, receiver: Receiver) -> Iterator[str]:
    """The address of an example that finds `telemetry` and nothing else of this project."""
    url = f"http://127.0.0.1:{free_port()}"
    run = ["-m", "uvicorn", f"{name}:app", "--app-dir", str(EXAMPLES), "--port", url.rsplit(":", 1)[1]]
    env = environment(folder, model, receiver)
    with start([sys.executable, "-P", *run], env, f"{url}/openapi.json"):
        yield url


def of_request(receiver: Receiver, path: str) -> Trace:
    """The trace of the request to this path."""
    (found,) = [trace for trace in traces(receiver.spans) if trace.root and trace.root.span.name == f"POST {path}"]
    return found


def tree(trace: Trace) -> str:
    return span_tree(each.span for each in trace.observations)


def test_three_lines_give_the_tree_of_the_platform(
    tmp_path: Path, model: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same graph makes the same spans with three lines as in our own service, and all that Langfuse wants."""
    asked = {"message": "What is 12*34?", "thread_id": "t-1", "user_id": "ada"}
    (tmp_path / "alone").mkdir()
    with Receiver() as receiver:
        with example("service", tmp_path / "alone", model, receiver) as url:
            answer = httpx.post(f"{url}/chat", json=asked, timeout=60)
        trace = of_request(receiver, "/chat")

    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", model.key)
    with recording() as spans, service(tmp_path / "platform", MODEL="openai:gpt-5.5") as url:
        with telemetry.suppress_instrumentation():
            AgentClient(url, "chatbot").invoke(asked["message"])
        platform = span_tree(of_turn(spans))

    assert "408" in answer.text
    assert tree(trace).replace("/chat", "/{agent_id}/invoke") == platform
    # A model that is not streamed has no first token.
    assert [wrong for wrong in violations(trace) if "first token" not in wrong] == []
    assert trace.root
    assert (trace.name, trace.root.input, trace.root.output) == ("chatbot", "What is 12*34?", answer.json())
    assert {each.span.attributes["session.id"] for each in trace.observations} == {"t-1"}
    assert {each.span.attributes["user.id"] for each in trace.observations} == {"ada"}


def test_create_agent(tmp_path: Path, model: OpenAIServer) -> None:
    """LangChain's own agent is a turn with its tree; what its config says is on every span."""
    asked = {"message": "What is 12*34?", "thread_id": "t-1", "user_id": "ada"}
    with Receiver() as receiver:
        with example("agent", tmp_path, model, receiver) as url:
            said = httpx.post(f"{url}/chat", json=asked, timeout=60).json()
        trace = of_request(receiver, "/chat")

    assert "408" in said
    assert tree(trace) == golden("""
        POST /chat SERVER
          turn AGENT
            clerk
              model
                ChatOpenAI LLM
              tools
                calculator TOOL
              model
                ChatOpenAI LLM
    """)
    assert trace.root
    assert (trace.name, trace.root.input, trace.root.output) == ("clerk", "What is 12*34?", said)
    for each in trace.observations:
        assert (each.span.attributes["session.id"], each.span.attributes["user.id"]) == ("t-1", "ada")
        assert each.span.attributes["langfuse.trace.tags"] == ["clerk", "beta"]


def test_a_chat_over_a_websocket(tmp_path: Path, model: OpenAIServer) -> None:
    """Each message is a trace with its question and its answer, in the same session."""
    said: list[str] = []
    with Receiver() as receiver:
        with example("websocket", tmp_path, model, receiver) as url, connect(f"ws{url[4:]}/chat/t-1") as socket:
            for question in ("What is 12*34?", "Hello"):
                socket.send(question)
                said.append(str(socket.recv()))
        turns = [trace for trace in traces(receiver.spans) if trace.root and trace.root.span.name == "turn"]

    assert [(turn.root and turn.root.input) for turn in turns] == ["What is 12*34?", "Hello"]
    assert [(turn.root and turn.root.output) for turn in turns] == said
    assert {each.span.attributes["session.id"] for turn in turns for each in turn.observations} == {"t-1"}


def test_a_script(tmp_path: Path, model: OpenAIServer) -> None:
    """The run of a program that ends is a trace, and nothing of it is lost."""
    with Receiver() as receiver:
        run = [sys.executable, str(EXAMPLES / "script.py"), "What is 12*34?"]
        env = {**UNSET, **environment(tmp_path, model, receiver)}
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=120, check=True)
        (trace,) = traces(receiver.spans)

    assert trace.root
    assert trace.name == "clerk"
    assert trace.root.input == [{"role": "user", "content": "What is 12*34?"}]
    assert trace.root.output[-1]["content"] == done.stdout.strip()
    assert {each.span.attributes["session.id"] for each in trace.observations} == {"nightly"}


STOPPED = """
import json, os, signal
import lambda_function
for message in ("What is 12*34?", "Hello"):
    asked = {"message": message, "thread_id": "t-1", "user_id": "ada"}
    print(json.dumps(lambda_function.handler(asked, None)["answer"]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lambda(tmp_path: Path, model: OpenAIServer) -> None:
    """What a function has recorded is sent before its handler returns, for its process may not go on after that."""
    with Receiver() as receiver:
        env = {**UNSET, **environment(tmp_path, model, receiver)}
        env["PYTHONPATH"] += f":{EXAMPLES}"
        run = [sys.executable, "-P", "-c", STOPPED]
        done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=120, check=False)
        invocations = traces(receiver.spans)

    assert [trace.name for trace in invocations] == ["clerk", "clerk"], done.stderr
    answers = [trace.root.output[-1]["content"] for trace in invocations if trace.root]
    assert answers == [json.loads(line) for line in done.stdout.splitlines()]
    for trace in invocations:
        for each in trace.observations:
            assert (each.span.attributes["session.id"], each.span.attributes["user.id"]) == ("t-1", "ada")


def test_an_openai_client(tmp_path: Path, model: OpenAIServer) -> None:
    """Without LangChain a model's call is a generation with its messages and usage; its HTTP call adds no span."""
    with Receiver() as receiver:
        with example("openai_client", tmp_path, model, receiver) as url:
            said = httpx.post(f"{url}/summary", json={"text": "Hello", "user_id": "ada"}, timeout=60).json()
        trace = of_request(receiver, "/summary")

    assert tree(trace) == golden("""
        POST /summary SERVER
          summary
            gpt-5.5 LLM
    """)
    (call,) = trace.of("generation")
    assert call.input[0]["role"] == "user"
    assert call.output == {"role": "assistant", "content": said}
    assert call.usage["input"] > 0 < call.usage["output"]
    assert [request.headers.get("traceparent") for request in model.received] == [None]


def test_an_agent_of_ones_own(tmp_path: Path, model: OpenAIServer) -> None:
    """Without LangChain a request is a turn with its question, its answer, its thread and its user."""
    asked = {"text": "A-1", "user_id": "ada", "thread_id": "t-1"}
    with Receiver() as receiver:
        with example("own_agent", tmp_path, model, receiver) as url:
            said = httpx.post(f"{url}/ask", json=asked, timeout=60).json()
        trace = of_request(receiver, "/ask")

    assert said == "Order A-1 is on its way."
    assert tree(trace) == golden("""
        POST /ask SERVER
          turn AGENT
            look_up TOOL
    """)
    assert {each.span.attributes["session.id"] for each in trace.observations} == {"t-1"}
    assert trace.root
    assert (trace.root.input, trace.root.output) == ("A-1", said)


def test_only_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page alone makes a trace of each question, links to it, and hands it to the service that it names."""
    sent: list[str | None] = []
    theirs = FastAPI()

    @theirs.post("/chat")
    async def chat(request: Request) -> str:
        sent.append(request.headers.get("traceparent"))
        return "An answer."

    settings = Settings.model_validate({"TRACE_URL": "http://traces.test/{trace_id}"})
    with serve(theirs) as url, recording(settings) as spans:
        monkeypatch.setenv("SERVICE_URL", url)
        page = AppTest.from_file(str(EXAMPLES / "page.py"), default_timeout=60).run()
        page.chat_input[0].set_value("What is 12*34?").run()
        finished = spans.settled()
        shown = span_tree(finished, ["session.id", "output.value"])

    assert not page.exception
    thread_id = page.session_state.thread_id
    assert shown == golden(f"""
        chat turn AGENT session.id={thread_id} output.value=An answer.
          POST CLIENT session.id={thread_id}
    """)
    trace_id = str(sent[0]).split("-")[1]
    assert page.get("link_button")[0].proto.url == f"http://traces.test/{trace_id}"


@pytest.fixture
def strange(
    model: OpenAIServer, langchain: str, spans: Recorded, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """A stranger's service, with one line more; the other two are the recording."""
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", model.key)
    app, rain = stranger.build(), FastAPI()
    rain.get("/")(lambda: "Rain.")
    telemetry.instrument(app)
    with (
        serve(app) as url,
        serve(rain) as stranger.WEATHER,
        telemetry.suppress_instrumentation(),
        httpx.Client(base_url=url, timeout=60, verify=False, trust_env=False) as client,
    ):
        yield client


def test_a_strangers_agent(strange: httpx.Client, spans: Recorded) -> None:
    """A tutorial's graph is traced whole, with its thread and its user on every span, and no node was touched."""
    said = strange.get("/stream", params={"thread_id": "t-1", "user_input": "What is 12*34?"}).text

    assert "408" in said
    assert one_turn(spans) == golden("""
        GET /stream SERVER
          turn AGENT turn.status=completed
            LangGraph
              router
                route
              chatbot
                ChatOpenAI LLM
                tools_condition
              tools
                calculator TOOL
              chatbot
                ChatOpenAI LLM
                tools_condition
    """)


def test_a_strangers_question(strange: httpx.Client, spans: Recorded) -> None:
    """A graph that asks a person waits, and is a turn of the same session when it is answered."""
    strange.get("/stream", params={"thread_id": "t-1", "user_input": "How is the weather?"})

    assert one_turn(spans) == golden("""
        GET /stream SERVER
          turn AGENT turn.status=waiting
            LangGraph
              router
                route
              weather
                GET CLIENT
              human interrupted=True
    """)
    spans.clear()
    strange.get("/stream", params={"thread_id": "t-1", "user_input": "12*34", "answers": True})
    assert one_turn(spans) == golden("""
        GET /stream SERVER
          turn AGENT turn.status=completed
            LangGraph
              human
    """)


def one_turn(spans: Recorded) -> str:
    """The tree of the one turn, once its request has ended, each span with its thread and its user."""
    finished = of_turn(spans)
    stamps: list[dict[str, Any]] = [dict(span.attributes or {}) for span in finished]
    assert {each.get("session.id") for each in stamps} == {"t-1"}
    assert {each.get("user.id") for each in stamps} == {"grace"}
    return span_tree(finished, ["turn.status", "interrupted"])


def of_turn(spans: Recorded) -> list[ReadableSpan]:
    """The spans of the one trace that has a turn; the model's server is traced as well, in traces of its own."""
    until(lambda: not spans.open and spans.get_finished_spans(), 60)
    finished = spans.settled()
    (turn,) = [span.context.trace_id for span in finished if span.name == "turn" and span.context]
    return [span for span in finished if span.context and span.context.trace_id == turn]


def golden(text: str) -> str:
    return dedent(text).strip()
