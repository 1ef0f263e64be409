"""Small programs as people write them: each is run untraced and traced, and must be the same.

A program is given `note`, by which it tells what it saw meanwhile, and returns or raises what it ends with.
"""

import asyncio
import contextlib
import contextvars
import logging
import operator
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict
from unittest import mock
from uuid import UUID

import httpx
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from hypothesis import Phase, given, settings
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeStreamingListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, RemoveMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import RunnableConfig, RunnableGenerator, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

import telemetry
from tests.differential.observed import Note, Program
from tests.differential.values import ANY, VALUES, Value, held

PROGRAMS: dict[str, Program] = {}


def program(fn: Program) -> Program:
    """Put a program into the table."""
    PROGRAMS[fn.__name__] = fn
    return fn


class AnyState(TypedDict, total=False):
    value: Any
    out: Any


class Model(BaseChatModel):
    """Answers with what it was given to say, in pieces where it is streamed."""

    says: list[Any]
    asked: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, *_: Any, **__: Any) -> "Model":
        return self

    def _next(self) -> Any:
        said = self.says[min(self.asked, len(self.says) - 1)]
        self.asked += 1
        if isinstance(said, Exception):
            raise said
        return said

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        said = self._next()
        message = said if isinstance(said, AIMessage) else AIMessage(said)
        return ChatResult(generations=[ChatGeneration(message=message)])


class Streaming(Model):
    """The same, word by word; an exception among the words breaks it off."""

    def _stream(self, messages: Any, *_: Any, run_manager: Any = None, **__: Any) -> Iterator[Any]:  # noqa: ARG002 - see above
        for word in self.says:
            if isinstance(word, Exception):
                raise word
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk


def call(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call-{name}"}])


def graph(*nodes: Any, state: Any = AnyState, **compiled: Any) -> Any:
    """A graph of these nodes, one after the other."""
    built: Any = StateGraph(state)
    before = START
    for number, node in enumerate(nodes):
        built.add_node(f"node{number}", node)
        built.add_edge(before, f"node{number}")
        before = f"node{number}"
    built.add_edge(before, END)
    return built.compile(**compiled)


# Values of every kind, in a graph's state, through a chain and out of a tool.


def _value_program(value: Value) -> Program:
    def through_everything(note: Note) -> Any:
        for place in (_in_state, _in_chain, _out_of_tool, _nested):
            with contextlib.ExitStack() as stack:
                made = value.make(stack)
                try:
                    same = place(made)
                except Exception as error:  # noqa: BLE001 - what a library says of the value is compared too
                    note(place.__name__, error)
                    continue
                note(place.__name__, same is made if same is not None else "gone", value.left(made))
        return "done"

    return through_everything


def _in_state(made: Any) -> Any:
    seen: list[Any] = []
    graph(lambda _: {"value": made}, lambda state: seen.append(state["value"])).invoke({"value": made})
    return seen[0]


def _in_chain(made: Any) -> Any:
    return (RunnableLambda(lambda x: x) | RunnableLambda(lambda x: x)).invoke(made)


def _out_of_tool(made: Any) -> Any:
    @tool
    def produce() -> Any:
        """Produce it."""
        return made

    return produce.invoke({})


def _nested(made: Any) -> Any:
    seen: list[Any] = []
    graph(
        lambda _: {"value": {"rows": [made], "more": {"it": made}}}, lambda s: seen.append(s["value"]["rows"][0])
    ).invoke({"value": [made, (made, {"x": made})]})
    return seen[0]


for each in VALUES:
    PROGRAMS[f"value: {each.name}"] = _value_program(each)


@program
def values_as_they_come(note: Note) -> Any:
    @settings(max_examples=25, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(ANY)
    def through_everything(made: Any) -> None:
        for place in (_in_state, _in_chain, _out_of_tool, _nested):
            try:
                same = place(made)
            except Exception as error:  # noqa: BLE001 - what a library says of the value is compared too
                note(place.__name__, error)
            else:
                note(place.__name__, same is made)
        note(held(made))

    through_everything()


# Graphs of every kind.


def _plus_one(x: int) -> int:
    return x + 1


def _doubled(x: int) -> int:
    return x * 2


def _inverse(x: int) -> int:
    return 1 // x


@program
def conditional_edges(note: Note) -> Any:
    built: Any = StateGraph(AnyState)
    built.add_node("a", lambda s: {"out": s["value"] + 1})
    built.add_node("b", lambda s: {"out": s["value"] + 2})
    built.add_conditional_edges(START, lambda s: "a" if s["value"] > 1 else "b")
    compiled = built.compile(name="choice")
    note(compiled.invoke({"value": 1}), compiled.invoke({"value": 2}))
    return list(compiled.stream({"value": 3}))


@program
def fan_out_by_send(note: Note) -> Any:
    class State(TypedDict, total=False):
        items: list[int]
        done: Annotated[list[int], operator.add]

    built: Any = StateGraph(State)
    built.add_node("one", lambda s: {"done": [s["item"] * 2]})
    built.add_conditional_edges(START, lambda s: [Send("one", {"item": each}) for each in s["items"]], ["one"])
    return sorted(built.compile().invoke({"items": [1, 2, 3]})["done"])


@program
def subgraph_and_command(note: Note) -> Any:
    inner = graph(lambda s: {"out": s["value"] * 10})
    built: Any = StateGraph(AnyState)
    built.add_node("inner", inner)
    built.add_node("jump", lambda _: Command(goto="last", update={"value": 5}))
    built.add_node("last", lambda s: {"out": (s["value"], s.get("out"))})
    built.add_edge(START, "inner")
    built.add_edge("inner", "jump")
    compiled = built.compile()
    note(list(compiled.stream({"value": 1}, stream_mode="updates")))
    return compiled.invoke({"value": 1})


@program
def interrupt_and_resume(note: Note) -> Any:
    def ask(state: AnyState) -> AnyState:
        return {"out": interrupt({"question": "go on?", "value": state.get("value")})}

    compiled = graph(ask, checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    first = compiled.invoke({"value": 1}, config)
    note([each.value for each in first["__interrupt__"]], compiled.get_state(config).next)
    return compiled.invoke(Command(resume="yes"), config)["out"]


@program
def functional_api(note: Note) -> Any:
    @task
    def double(x: int) -> int:
        return x * 2

    @entrypoint(checkpointer=InMemorySaver())
    def flow(x: int) -> Any:
        return [each.result() for each in [double(x), double(x + 1)]]

    return flow.invoke(3, {"configurable": {"thread_id": "t"}})


@program
def recursion_limit(note: Note) -> Any:
    built: Any = StateGraph(AnyState)
    built.add_node("a", lambda s: {"value": s["value"] + 1})
    built.add_edge(START, "a")
    built.add_edge("a", "a")
    return built.compile().invoke({"value": 0}, {"recursion_limit": 3})


@program
def pydantic_state(note: Note) -> Any:
    class State(BaseModel):
        value: int = 0
        names: list[str] = []

    compiled = graph(lambda s: {"value": s.value + 1, "names": ["a"]}, state=State)
    return compiled.invoke({"value": 1})


@program
def bad_state(note: Note) -> Any:
    class State(BaseModel):
        value: int

    return graph(lambda _: {"value": 1}, state=State).invoke({"value": "no number"})


@program
def retry_policy(note: Note) -> Any:
    tries: list[int] = []

    def flaky(_: AnyState) -> AnyState:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return {"out": len(tries)}

    built: Any = StateGraph(AnyState)
    built.add_node("a", flaky, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
    built.add_edge(START, "a")
    note(built.compile().invoke({"value": 1}))
    return len(tries)


@program
def every_stream_mode(note: Note) -> Any:
    def talks(state: MessagesState, writer: Any = None) -> Any:
        from langgraph.config import get_stream_writer

        get_stream_writer()({"progress": 1})
        return {"messages": [Streaming(says=["a ", "b"]).invoke(state["messages"])]}

    compiled = graph(talks, state=MessagesState)
    for mode in ("values", "updates", "messages", "custom", "debug"):
        note(mode, [type(each).__name__ for each in compiled.stream({"messages": [("user", "hi")]}, stream_mode=mode)])
    return list(compiled.stream({"messages": [("user", "hi")]}, stream_mode=["updates", "custom"]))


@program
def events_of_a_graph(note: Note) -> Any:
    compiled = graph(lambda s: {"messages": [Streaming(says=["a ", "b"]).invoke(s["messages"])]}, state=MessagesState)

    async def events() -> list[tuple[str, str]]:
        return [
            (e["event"], e["name"]) async for e in compiled.astream_events({"messages": [("user", "hi")]}, version="v2")
        ]

    return asyncio.run(events())


@program
def batches(note: Note) -> Any:
    chain = RunnableLambda(_plus_one) | RunnableLambda(_doubled)
    note(chain.batch([1, 2, 3]))
    return asyncio.run(chain.abatch([4, 5]))


@program
def one_run_id_for_parallel_runs(note: Note) -> Any:
    from uuid import uuid4

    compiled, run_id = graph(lambda s: {"out": s["value"]}), uuid4()

    async def both() -> Any:
        return await asyncio.gather(*(compiled.ainvoke({"value": n}, {"run_id": run_id}) for n in range(3)))

    return asyncio.run(both())


# Models, tools, agents.


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def fails(a: int) -> int:
    """Fail."""
    raise ValueError("no", a)


@program
def agent_with_a_tool(note: Note) -> Any:
    agent: Any = create_agent(Model(says=[call("add", a=1, b=2), "three"]), [add])
    return agent.invoke({"messages": [("user", "1 + 2?")]})["messages"]


@program
def agent_whose_tool_fails(note: Note) -> Any:
    agent: Any = create_agent(Model(says=[call("fails", a=1), "sorry"]), [fails])
    return agent.invoke({"messages": [("user", "go")]})["messages"]


@program
def agent_streamed(note: Note) -> Any:
    agent: Any = create_agent(Model(says=[call("add", a=1, b=2), "three"]), [add])
    return [list(each) for each in agent.stream({"messages": [("user", "1 + 2?")]}, stream_mode="updates")]


@program
def tool_node_with_errors_handled(note: Note) -> Any:
    compiled = graph(ToolNode([fails], handle_tool_errors=True), state=MessagesState)
    return compiled.invoke({"messages": [call("fails", a=1)]})["messages"]


@program
def tool_with_an_artifact(note: Note) -> Any:
    @tool(response_format="content_and_artifact")
    def fetch() -> tuple[str, Any]:
        """Fetch."""
        return "rows", iter([1, 2, 3])

    message = fetch.invoke({"name": "fetch", "args": {}, "id": "1", "type": "tool_call"})
    return list(message.artifact)


@program
def tool_called_wrongly(note: Note) -> Any:
    return add.invoke({"a": "x"})


@program
def async_tool_in_a_thread(note: Note) -> Any:
    @tool
    async def slow(a: int) -> int:
        """Be slow."""
        await asyncio.sleep(0)
        return await asyncio.to_thread(lambda: a * 2)

    return asyncio.run(slow.ainvoke({"a": 4}))


@program
def model_that_breaks_off(note: Note) -> Any:
    for piece in Streaming(says=["a ", "b ", RuntimeError("cut")]).stream("hi"):
        note(piece)


@program
def model_that_fails(note: Note) -> Any:
    return Model(says=[ValueError("refused", {"code": 429})]).invoke("hi")


@program
def model_left_half_read(note: Note) -> Any:
    stream: Any = Streaming(says=["a ", "b ", "c"]).stream("hi")
    note(next(stream))
    stream.close()
    return "closed"


@program
def messages_are_the_callers_own(note: Note) -> Any:
    question = HumanMessage([{"type": "text", "text": "hi"}], additional_kwargs={"own": [1]})
    compiled = graph(lambda s: {"messages": [Model(says=["hello"]).invoke(s["messages"])]}, state=MessagesState)
    answer = compiled.invoke({"messages": [question]})
    note(answer["messages"][0].content is question.content)
    return answer["messages"]


@program
def messages_removed(note: Note) -> Any:
    compiled = graph(lambda s: {"messages": [RemoveMessage(id=s["messages"][0].id)]}, state=MessagesState)
    return compiled.invoke({"messages": [HumanMessage("a", id="1"), AIMessage("b", id="2")]})["messages"]


@program
def runnables_of_every_kind(note: Note) -> Any:
    chain = RunnableParallel(a=RunnableLambda(lambda x: x), b=RunnableLambda(_doubled)).with_config(tags=["t"])
    note(chain.invoke(2))
    inverse: Any = RunnableLambda(_inverse)
    risky = inverse.with_fallbacks([RunnableLambda(lambda _: "instead")])
    note(risky.invoke(0))
    tries: list[int] = []

    def flaky(x: int) -> int:
        tries.append(x)
        return 1 // (len(tries) - 1)

    note(RunnableLambda(flaky).with_retry(wait_exponential_jitter=False).invoke(1), len(tries))
    return list(RunnableGenerator(lambda chunks: (each for each in chunks)).stream("abc"))


@program
def a_chain_streams_lazily(note: Note) -> Any:
    def source(_: Iterator[Any]) -> Iterator[int]:
        for number in range(4):
            note("made", number)
            yield number

    for piece in RunnableGenerator(source).stream(1):
        note("got", piece)


@program
def listeners_and_callbacks(note: Note) -> Any:
    class Order(BaseCallbackHandler):
        def on_chain_start(self, serialized: Any, inputs: Any, **__: Any) -> None:  # noqa: ARG002 - LangChain's signature
            note("start", inputs)

        def on_chain_end(self, outputs: Any, **__: Any) -> None:
            note("end", outputs)

        def on_chain_error(self, error: BaseException, **__: Any) -> None:
            note("error", error)

        def on_chat_model_start(self, serialized: Any, messages: Any, **__: Any) -> None:  # noqa: ARG002 - see above
            note("model", messages)

        def on_llm_new_token(self, token: Any, **__: Any) -> None:
            note("token", token)

    compiled = graph(lambda s: {"messages": [Streaming(says=["a ", "b"]).invoke(s["messages"])]}, state=MessagesState)
    note(compiled.invoke({"messages": [("user", "hi")]}, {"callbacks": [Order()]})["messages"][-1])
    heard = RunnableLambda(lambda x: x).with_listeners(on_start=lambda run: note("run", run.inputs))
    return heard.invoke(3)


class Told(BaseCallbackHandler):
    """What a handler is told of model calls, without what a run makes up."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.open: set[UUID] = set()

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002 - LangChain's signature
        self.open.add(run_id)
        self.lines.append(("start", prompts))

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.lines.append(("token", token))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        self.lines.append(("end", run_id in self.open, response.generations[0][0].text))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self.lines.append(("error", run_id in self.open, error))


class ToldInline(Told):
    """The same, called inline."""

    run_inline = True


class ToldAsync(AsyncCallbackHandler):
    """The same, asynchronously."""

    def __init__(self) -> None:
        self._told = Told()
        self.lines = self._told.lines

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        self._told.on_llm_start(*args, **kwargs)

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self._told.on_llm_new_token(token)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        self._told.on_llm_end(response, run_id=run_id)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._told.on_llm_error(error, run_id=run_id)


@program
def patched_sleep(note: Note) -> Any:
    """As tests of programs patch it: whoever else sleeps would be counted, or run without a pause."""
    with mock.patch("time.sleep") as slept:
        for number in range(20):
            graph(lambda s: {"out": s["value"]}).invoke({"value": number})
            threading.Event().wait(0.01)
    note(slept.call_args_list)


@program
def handlers_of_a_text_model(note: Note) -> Any:
    def model(*says: str) -> FakeStreamingListLLM:
        return FakeStreamingListLLM(responses=list(says))

    async def asynchronously(handlers: list[Any]) -> None:
        config: RunnableConfig = {"callbacks": handlers}
        note(await model("a").ainvoke("one", config))
        note(await model("a", "b", "c").abatch(["one", "two", "three"], config))
        note((await model("a", "b").agenerate(["one", "two"], callbacks=handlers)).generations)
        note([piece async for piece in model("ab").astream("one", config)])

    for kinds in ((Told,), (ToldInline,), (Told, ToldInline), (ToldAsync,), (Told, ToldAsync, ToldInline)):
        handlers: list[Any] = [kind() for kind in kinds]
        note(model("a").invoke("one", {"callbacks": handlers}), model("a", "b").batch(["one", "two"]))
        asyncio.run(asynchronously(handlers))
        for each in handlers:
            note(type(each).__name__, sorted(map(str, each.lines)))


@program
def events_of_a_text_model(note: Note) -> Any:
    async def listen() -> None:
        chain = RunnableLambda(str) | FakeStreamingListLLM(responses=["ab"])
        for version in ("v1", "v2"):
            async for event in chain.astream_events("one", version=version):
                note(version, event["event"], event["name"], event["data"])
        async for patch in chain.astream_log("one"):
            note("log", sorted(each["op"] for each in patch.ops))

    asyncio.run(listen())


@program
def a_handler_that_raises(note: Note) -> Any:
    class Angry(BaseCallbackHandler):
        raise_error = True

        def on_chain_start(self, *_: Any, **__: Any) -> None:
            raise LookupError("not me")

    return RunnableLambda(lambda x: x).invoke(1, {"callbacks": [Angry()]})


@program
def a_config_stays_the_callers(note: Note) -> Any:
    config: RunnableConfig = {"tags": ["a"], "metadata": {"tenant": "acme"}, "configurable": {"thread_id": "t"}}
    seen: list[Any] = []

    def node(state: AnyState, config: RunnableConfig) -> AnyState:
        seen.append((sorted(config.get("tags") or []), config.get("metadata", {}).get("tenant")))
        return {"out": 1}

    graph(node).invoke({"value": 1}, config)
    note(seen)
    return config


# What fails, and how.


class OwnError(Exception):
    """An exception with a state of its own."""

    def __init__(self, code: int) -> None:
        super().__init__("own", code)
        self.code = code
        self.details = {"why": [1, 2]}


class SlotError(Exception):
    """One that takes no attributes."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@program
def errors_keep_their_cause(note: Note) -> Any:
    def node(_: AnyState) -> AnyState:
        try:
            raise KeyError("inner")  # noqa: TRY301 - a cause is what it is about
        except KeyError as error:
            raise OwnError(7) from error

    return graph(node).invoke({"value": 1})


@program
def an_error_with_slots(note: Note) -> Any:
    def node(_: AnyState) -> AnyState:
        raise SlotError(3)

    return graph(node).invoke({"value": 1})


@program
def the_same_error_twice(note: Note) -> Any:
    error = OwnError(1)

    def node(_: AnyState) -> AnyState:
        raise error

    for _ in range(2):
        try:
            graph(node).invoke({"value": 1})
        except OwnError as caught:
            note(caught is error, sorted(vars(caught)))
    return sorted(vars(error))


@program
def a_group_of_errors(note: Note) -> Any:
    def node(_: AnyState) -> AnyState:
        raise ExceptionGroup("several", [ValueError("a"), OwnError(2)])

    return graph(node).invoke({"value": 1})


@program
def a_note_on_an_error(note: Note) -> Any:
    def node(_: AnyState) -> AnyState:
        error = ValueError("noted")
        error.add_note("see the manual")
        raise error

    return graph(node).invoke({"value": 1})


@program
def an_exit_within_a_node(note: Note) -> Any:
    def node(_: AnyState) -> AnyState:
        raise SystemExit(3)

    return graph(node).invoke({"value": 1})


@program
def a_run_that_is_cancelled(note: Note) -> Any:
    async def slow(_: AnyState) -> AnyState:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("cleaned up")
            raise
        return {}

    async def main() -> None:
        running = asyncio.create_task(graph(slow).ainvoke({"value": 1}))
        await asyncio.sleep(0.05)
        running.cancel("enough")
        await running

    asyncio.run(main())


@program
def a_run_that_takes_too_long(note: Note) -> Any:
    async def slow(_: AnyState) -> AnyState:
        await asyncio.sleep(60)
        return {}

    async def main() -> None:
        async with asyncio.timeout(0.05):
            await graph(slow).ainvoke({"value": 1})

    asyncio.run(main())


@program
def a_stream_left_early(note: Note) -> Any:
    async def main() -> Any:
        async def talk(_: AnyState) -> AnyState:
            return {"out": 1}

        stream = graph(talk, talk, talk).astream({"value": 1})
        async for piece in stream:
            note(piece)
            break
        await stream.aclose()

    return asyncio.run(main())


# What stands around a run.


@program
def context_variables(note: Note) -> Any:
    mine = contextvars.ContextVar("mine", default="outside")
    mine.set("caller")

    def node(_: AnyState) -> AnyState:
        note(mine.get())
        mine.set("node")
        return {}

    graph(node, node).invoke({"value": 1})
    return mine.get()


@program
def threads_of_the_program(note: Note) -> Any:
    def node(state: AnyState) -> AnyState:
        with ThreadPoolExecutor(2, "own-pool") as pool:
            return {"out": list(pool.map(lambda x: (x, threading.current_thread().name[:8]), range(3)))}

    return graph(node).invoke({"value": 1})["out"]


@program
def records_with_extras(note: Note) -> Any:
    logger = logging.getLogger("program")

    def node(_: AnyState) -> AnyState:
        logger.warning("in a node", extra={"own_field": {"a": 1}})
        logger.warning("a name that is taken", extra={"otelTraceID": "own", "otelSpanID": "own", "own_b": 2})
        try:
            raise ValueError("logged")  # noqa: TRY301 - a record of it is what it is about
        except ValueError:
            logger.exception("caught %s", "it")
        return {}

    return graph(node).invoke({"value": 1})


@program
def warnings_of_a_node(note: Note) -> Any:
    def node(_: AnyState) -> AnyState:
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        return {}

    return graph(node).invoke({"value": 1})


@program
def locks_are_not_taken(note: Note) -> Any:
    lock = threading.Lock()

    class Guarded:
        def __repr__(self) -> str:
            with lock:
                return "guarded"

    def node(_: AnyState) -> AnyState:
        return {"out": Guarded()}

    with lock:
        out = graph(node, lambda _: {}).invoke({"value": Guarded()})
    return repr(out["out"])


# Services.


# What the instrumentor adds to an answer: where the trace is.
TRACE_HEADERS = ("traceresponse", "access-control-expose-headers")


def _asked(app: FastAPI, note: Note, *paths: str, method: str = "GET", content: bytes = b"") -> None:
    telemetry.instrument(app)
    with TestClient(app, raise_server_exceptions=False) as client:
        for path in paths:
            answer = client.request(method, path, content=content)
            headers = {name: value for name, value in answer.headers.items() if name not in TRACE_HEADERS}
            note(path, answer.status_code, answer.text, headers)


@program
def service_with_middlewares(note: Note) -> Any:
    app = FastAPI()

    @app.middleware("http")
    async def add_header(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-own"] = "1"
        return response

    @app.get("/{name}")
    async def hello(name: str, request: Request) -> Any:
        return {"name": name, "headers": sorted(request.headers)}

    _asked(app, note, "/ada", "/bob?x=1")


@program
def service_that_fails(note: Note) -> Any:
    app = FastAPI()

    @app.exception_handler(OwnError)
    async def handle(_: Request, error: OwnError) -> JSONResponse:
        return JSONResponse({"code": error.code}, status_code=418)

    @app.get("/own")
    async def own() -> None:
        raise OwnError(5)

    @app.get("/http")
    async def http() -> None:
        raise HTTPException(403, "no", headers={"x-why": "because"})

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    _asked(app, note, "/own", "/http", "/bug", "/nowhere")


@program
def service_that_streams(note: Note) -> Any:
    app = FastAPI()

    async def words() -> AsyncIterator[str]:
        for word in ("a", "b", "c"):
            note("sends", word)
            yield word

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(words(), media_type="text/plain")

    _asked(app, note, "/stream")


@program
def service_with_background_tasks(note: Note) -> Any:
    app = FastAPI()

    @app.post("/work")
    async def work(tasks: BackgroundTasks, request: Request) -> Any:
        tasks.add_task(note, "in the background")
        return {"bytes": len(await request.body())}

    _asked(app, note, "/work", method="POST", content=b"x" * 10_000)


@program
def service_with_a_socket(note: Note) -> Any:
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text.upper())

    telemetry.instrument(app)
    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        socket.send_text("a")
        note(socket.receive_text())
        socket.send_text("b")
        return socket.receive_text()


@program
def service_and_its_lifespan(note: Note) -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, int]]:
        note("starts")
        yield {"given": 1}
        note("ends")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root(request: Request) -> Any:
        return request.state.given

    _asked(app, note, "/")


@program
def a_graph_in_a_request(note: Note) -> Any:
    app, compiled = FastAPI(), graph(lambda s: {"out": s["value"] * 2})

    @app.get("/{number}")
    async def ask(number: int) -> Any:
        return await compiled.ainvoke({"value": number})

    _asked(app, note, "/1", "/2")


@program
def calls_by_httpx(note: Note) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"headers": sorted(request.headers)}, headers={"x": "y"})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        answered = client.post("http://service.example/a?b=c", json={"x": 1}, headers={"x-own": "1"})
    note(answered.status_code, answered.json(), dict(answered.headers))

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with httpx.Client(transport=httpx.MockTransport(broken)) as client:
        return client.get("http://service.example")


# Our own calls, with tracing off and on.


@program
def spans_of_our_own(note: Note) -> Any:
    @telemetry.traced_node("own")
    def node(_: AnyState) -> AnyState:
        telemetry.event("seen", key="value")
        return {"out": 1}

    with telemetry.scope(session_id="s", user_id="u"), telemetry.span("own"):
        note(graph(node).invoke({"value": 1}))
    try:
        with telemetry.span("fails"):
            raise OwnError(2)  # noqa: TRY301 - what is left on it is what it is about
    except OwnError as error:
        telemetry.capture_exception(error)
        return sorted(vars(error))


@program
def a_generator_under_a_span(note: Note) -> Any:
    def numbers() -> Iterator[int]:
        with telemetry.span("numbers"):
            yield from range(3)

    return list(numbers())


@program
def time_is_the_programs_own(note: Note) -> Any:
    began = time.monotonic()
    graph(lambda _: {"out": "x" * 1000}).invoke({"value": ["y" * 1000] * 1000})
    return time.monotonic() - began < 20
