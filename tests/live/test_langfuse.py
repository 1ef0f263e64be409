"""A turn of every agent as Langfuse has it: a real one with `pytest -m live` and LANGFUSE_* set, else the viewer."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import httpx
import pytest
from langfuse.api import CreateTextPromptRequest
from langfuse.api.core import ApiError

from app.agents import AGENTS
from app.client import AgentClient, AgentError
from telemetry.backends.langfuse import connect
from telemetry.json_text import parse
from telemetry.settings import Settings
from tests.conftest import REAL
from tests.langfuse_server import langfuse_server
from tests.processes import Process, free_port, run_code, start, until
from tests.telemetry.delivery.test_media import CHAT, END, media_id, picture, reference
from tests.telemetry.viewer.test_experiments import PROGRAM as EXPERIMENT

if TYPE_CHECKING:
    from langfuse.api import LangfuseAPI

pytestmark = pytest.mark.live

Found = TypeVar("Found")

FIELDS = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
# Langfuse takes what it is sent into queues of its own.
PATIENCE_S = 120
SAY = {
    "supervisor": "What is 12*34 and what time is it?",
    "research": "Look up sampling and search for baggage.",
    "interrupt": "Book a table for 4 at 20:00.",
    "bg-task": "work for 1 second",
}
QUESTION = "What is 12*34?"
PROMPTED = dedent("""
    import sys, telemetry
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    telemetry.configure("prompts")
    prompt = telemetry.prompt(sys.argv[1], fallback="Greet {{who}}")
    model = GenericFakeChatModel(messages=iter([AIMessage("Hello")]))
    with telemetry.span("greet"):
        model.invoke(prompt.compile(who="Ada"), {"metadata": prompt.metadata})
        trace = telemetry.current_trace()
    telemetry.shutdown()
    print(trace.trace_id)
""")


@dataclass(frozen=True)
class Stage:
    """A running service, and the Langfuse that it sends to, read by the SDK."""

    url: str
    langfuse: "LangfuseAPI"
    env: Mapping[str, str]

    @property
    def environment(self) -> str:
        """What its traces are filed under."""
        return self.env["LANGFUSE_ENVIRONMENT"]

    def client(self, agent: str | None = None) -> AgentClient:
        """A client who nobody else is, so that a project that is in use has its traces told apart."""
        return AgentClient(self.url, agent, timeout=90, user_id=f"live-{uuid4().hex[:8]}")

    def observations(self, trace_id: str, until_there: Callable[[list[Any]], bool]) -> list[Any]:
        """The trace's observations once all that matters has come."""
        return self._read(lambda: self.langfuse.observations.get_many(trace_id=trace_id, fields=FIELDS), until_there)

    def scores(self, trace_id: str, until_there: Callable[[list[Any]], bool]) -> list[Any]:
        """The trace's scores once they are as they should be."""
        return self._read(
            lambda: self.langfuse.scores.get_many(trace_id=trace_id, fields="details,subject"), until_there
        )

    def _read(self, ask: Callable[[], Any], until_there: Callable[[list[Any]], bool]) -> list[Any]:
        found: list[Any] = []

        def look() -> bool:
            found[:] = ask().data
            return until_there(found)

        until(look, PATIENCE_S, lambda: f"Langfuse has only: {found}")
        return found


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("live")
    real = REAL if "live" in request.config.option.markexpr and "LANGFUSE_SECRET_KEY" in REAL else None
    with nullcontext() if real else langfuse_server(folder) as server:
        keys = real or (server.env if server else {})
        env = {"LANGFUSE_ENVIRONMENT": "live", **keys, "DEMO_PACE_S": "0", "MODEL_PRICES": "demo=1.5/2.5"}
        with serving(env, folder) as (_, url), connect(Settings.model_validate(keys)) as client:
            yield Stage(url, client, env)


@contextmanager
def serving(env: Mapping[str, str], folder: Path, **more: str) -> Iterator[tuple[Process, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    own = {"PORT": str(port), "DATA_DIR": str(folder), "TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    with start([sys.executable, "-m", "app"], {**env, **own, **more}, f"{url}/health") as process:
        yield process, url


def ran(stage: Stage, folder: Path, program: str, *arguments: str, **env: str) -> str:
    """What a traced program prints."""
    spool = {"TELEMETRY_SPOOL_DIR": str(folder / "spool")}
    done = run_code(program, *arguments, env={**stage.env, **spool, **env})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def has(*names: str) -> Callable[[list[Any]], bool]:
    return lambda found: set(names) <= {each.name for each in found}


def is_whole(found: list[Any]) -> bool:
    """Whether no parent is missing: what was sent in two requests may come in either order."""
    ids = {each.id for each in found}
    parents = {each.parent_observation_id for each in found}
    return has("turn")(found) and any(each.type == "GENERATION" for each in found) and parents - {None} <= ids


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_a_turn_of_each_agent(stage: Stage, agent: str) -> None:
    """The turn is one trace with its session, its user, its model calls, what was said, and no error."""
    client, thread_id = stage.client(agent), f"live-{uuid4().hex[:8]}"
    answer = client.invoke(SAY.get(agent, QUESTION), thread_id=thread_id)
    found = stage.observations(answer.trace_id or "", is_whole)

    [turn] = [each for each in found if each.name == "turn"]
    assert (turn.type, turn.session_id, turn.user_id, turn.trace_name) == ("AGENT", thread_id, client.user_id, agent)
    assert [each.name for each in found if each.level == "ERROR"] == []
    assert {each.session_id for each in found} == {thread_id}
    assert len([each for each in found if each.is_root_observation]) == 1
    models = [each for each in found if each.type == "GENERATION"]
    assert models
    assert all(each.usage_details for each in models)
    assert all(each.model == "demo" for each in models)
    assert {each.environment for each in found} == {stage.environment}


def test_a_turn_is_the_same_in_each_format(stage: Stage, tmp_path: Path) -> None:
    """With all formats at once it is shown as with Langfuse's own; with the GenAI conventions' alone, what matters."""
    views: dict[str, list[Any]] = {}
    essentials: dict[str, list[Any]] = {}
    for shape in ("langfuse", "all", "genai"):
        with serving(stage.env, tmp_path / shape, TELEMETRY_SHAPE=shape) as (_, url):
            answer = AgentClient(url, "chatbot", timeout=90, user_id="ada").invoke(QUESTION, thread_id="t-1")
            found = stage.observations(answer.trace_id or "", lambda found: is_whole(found) and len(found) >= 11)
        found.sort(key=lambda each: each.start_time)
        views[shape] = [without_ids(_view(each)) for each in found]
        essentials[shape] = [_essentials(each) for each in found]

    assert views["all"] == views["langfuse"]
    assert essentials["genai"] == essentials["langfuse"]


def _view(each: Any) -> tuple[Any, ...]:
    told = (each.name, each.type, each.level, each.status_message, each.model, each.session_id, each.user_id)
    # The server writes the JSON anew when it finds the definitions of tools in other formats too.
    said = [parse(text) or text for text in (each.input, each.output)]
    return *told, each.trace_name, *said, each.usage_details, each.total_cost


def _essentials(each: Any) -> tuple[Any, ...]:
    said = (each.input, each.output) if each.is_root_observation else ()
    # The conventions have no total.
    used = {kind: count for kind, count in each.usage_details.items() if kind != "total"}
    return each.type, each.level, each.model, each.session_id, used, each.total_cost, *said


def without_ids(value: Any) -> str:
    """What a person sees of it: the ids of a tool call differ in each turn."""
    return re.sub(r"call_[0-9a-f]{32}", "call", str(value))


def test_a_session_is_its_turns(stage: Stage) -> None:
    """Votes, files and what a page does are beside it; each model call costs what it was said to."""
    client, thread_id = stage.client("chatbot"), f"live-{uuid4().hex[:8]}"
    client.event("page_load", thread_id)
    turns: set[str] = set()
    for message in ("Hello", QUESTION, "Bye"):
        answer = client.invoke(message, thread_id=thread_id)
        turns.add(answer.trace_id or "")
        client.feedback(answer.run_id or "", "stars", 1.0)
        client.event("stop", thread_id)
    sent = client.upload(thread_id, b"hello", name="notes.txt")
    observations = [each for trace_id in turns for each in stage.observations(trace_id, is_whole)]
    stage.observations(sent.trace_id or "", has("upload file"))

    found = stage.langfuse.observations.get_many(session_id=thread_id, limit=100).data
    assert {each.trace_id for each in found} == turns
    for each in (each for each in observations if each.type == "GENERATION"):
        used = each.usage_details
        assert each.total_cost == pytest.approx(1.5e-6 * used["input"] + 2.5e-6 * used["output"])


def test_a_prompt_is_linked(stage: Stage, tmp_path: Path) -> None:
    """A model call has the name and the version of the prompt that it was given."""
    name = f"live-{uuid4().hex[:8]}"
    stage.langfuse.prompts.create(
        request=CreateTextPromptRequest(name=name, prompt="Hi {{who}}", labels=["production"])
    )
    found = stage.observations(ran(stage, tmp_path, PROMPTED, name), has("GenericFakeChatModel"))

    [model] = [each for each in found if each.type == "GENERATION"]
    assert (model.prompt_name, model.prompt_version, "Hi Ada" in str(model.input)) == (name, 1, True)


def test_each_item_of_an_experiment_is_one_trace(stage: Stage, tmp_path: Path) -> None:
    """The unchanged SDK runs a graph over a dataset: the graph is below the item's span, once."""
    name = f"live-{uuid4().hex[:8]}"
    stage.langfuse.datasets.create(name=name)
    for country, capital in {"Germany": "Berlin", "Italy": "Rome", "France": "Paris"}.items():
        stage.langfuse.dataset_items.create(dataset_name=name, input=country, expected_output=capital)
    traces = ran(stage, tmp_path, EXPERIMENT, name).split()

    assert len(set(traces)) == 3
    for trace_id in traces:
        found = stage.observations(trace_id, has("experiment-item-run", "capitals", "GenericFakeChatModel"))
        assert [each.name for each in found if each.is_root_observation] == ["experiment-item-run"]
        assert [each.type for each in found].count("GENERATION") == 1


def test_a_tool_shows_what_it_did(stage: Stage) -> None:
    """A tool call is an observation of its type, with what went in and came out."""
    answer = stage.client("chatbot").invoke(QUESTION)
    found = stage.observations(answer.trace_id or "", has("turn", "calculator"))

    [tool] = [each for each in found if each.name == "calculator"]
    assert (tool.type, "12*34" in str(tool.input), "408" in str(tool.output)) == ("TOOL", True, True)


@pytest.mark.parametrize(("agent", "message", "tool", "reason"), [
    ("chatbot", "What is 1/0?", "calculator", "cannot be calculated"),
    ("coding", "`1/0`", "python_repl", "Exit status 1"),
    ("coding", "`while True: print('x' * 1000)`", "python_repl", "Stopped, output"),
])  # fmt: skip
def test_a_tool_that_fails_or_is_killed(stage: Stage, agent: str, message: str, tool: str, reason: str) -> None:
    """The tool is an error with its reason, the turn that goes on is none."""
    answer = stage.client(agent).invoke(message)
    found = stage.observations(answer.trace_id or "", has("turn", tool))

    assert [each.name for each in found if each.level == "ERROR"] == [tool]
    [call] = [each for each in found if each.name == tool]
    assert reason in (call.status_message or "")


def test_a_tool_that_takes_too_long(stage: Stage, tmp_path: Path) -> None:
    """The turn is an error that says so, the tool was stopped, and all of it is there."""
    with serving(stage.env, tmp_path, TURN_TIMEOUT_S="3") as (_, url), pytest.raises(AgentError) as failure:
        AgentClient(url, "coding", timeout=90).invoke("`import time; time.sleep(60)`")
    found = stage.observations(failure.value.trace_id or "", has("turn", "python_repl"))

    levels = {each.name: (each.level, each.status_message) for each in found}
    assert levels["turn"] == ("ERROR", "TimeoutError: the turn took longer than 3 s")
    assert levels["python_repl"][0] == "WARNING"


def test_a_task(stage: Stage) -> None:
    """What a task tells are observations below it."""
    answer = stage.client("bg-task").invoke("work for 1.5 seconds")
    found = stage.observations(answer.trace_id or "", has("turn", "task long work", "finished"))

    [task] = [each for each in found if each.name == "task long work"]
    below = {each.name for each in found if each.parent_observation_id == task.id}
    assert below == {"started", "progress", "finished"}


def test_a_run_that_is_killed_and_resumed(stage: Stage, tmp_path: Path) -> None:
    """Its life is seen while it lives; the attempt that died is closed as lost, the next one a trace of the session."""
    pytest.importorskip("dbos", reason="background runs need DBOS")
    with serving(stage.env, tmp_path) as (process, url):
        run = httpx.post(f"{url}/bg-task/runs", json={"message": "work for 10 seconds"}, timeout=30).json()
        seen = stage.observations(run["trace_id"], has("heartbeat", "started"))
        process.popen.kill()
        process.popen.wait(10)
    with serving(stage.env, tmp_path) as (_, url):
        done: dict[str, Any] = {}

        def is_over() -> bool:
            done.update(httpx.get(f"{url}/runs/{run['run_id']}", timeout=30).json())
            return done["status"] == "completed"

        until(is_over, PATIENCE_S)
    lost, again = ([t for t in stage.observations(i, has("turn")) if t.name == "turn"] for i in done["trace_ids"])

    assert "turn" not in {each.name for each in seen}
    assert [(each.level, each.status_message) for each in lost] == [("ERROR", "lost: its process died")]
    assert [each.level for each in again] == ["DEFAULT"]
    assert {each.session_id for each in lost + again} == {run["thread_id"]}


def test_a_score_is_given_changed_and_taken_back(stage: Stage) -> None:
    """Feedback is a score on the turn's trace, in its environment; a change of mind leaves one, taking it back none."""
    client = stage.client("chatbot")
    answer = client.invoke("Hello")
    trace_id = answer.trace_id or ""
    first = client.feedback(answer.run_id or "", "stars", 0.2, comment="Hm.")
    [turn] = [each for each in stage.observations(trace_id, has("turn")) if each.name == "turn"]
    stage.scores(trace_id, lambda found: [each.value for each in found] == [0.2])
    client.feedback(answer.run_id or "", "stars", 1.0, comment="Better.")
    [score] = stage.scores(trace_id, lambda found: [each.value for each in found] == [1.0])

    assert (score.id, score.name, score.data_type, score.comment) == (first.score_id, "stars", "NUMERIC", "Better.")
    assert (score.environment, score.subject.kind, score.subject.id) == (turn.environment, "trace", trace_id)
    client.feedback(answer.run_id or "", "stars", None)
    stage.scores(trace_id, lambda found: not found)


@pytest.mark.parametrize(("value", "kind"), [(True, "BOOLEAN"), ("good", "CATEGORICAL"), (3, "NUMERIC")])
def test_scores_of_each_type(stage: Stage, value: float | str, kind: str) -> None:
    """Each type of score arrives as what it is."""
    client = stage.client("chatbot")
    answer = client.invoke("Hello")
    client.feedback(answer.run_id or "", "mood", value)
    [score] = stage.scores(answer.trace_id or "", bool)

    assert (score.value, score.data_type) == (value, kind)


def test_a_file_is_seen_with_its_thread(stage: Stage) -> None:
    """An upload is a trace with the thread as metadata, and not one of the session: that consists of turns."""
    client, thread_id = stage.client(), f"live-{uuid4().hex[:8]}"
    sent = client.upload(thread_id, b"hello", name="notes.txt")
    found = stage.observations(sent.trace_id or "", has("upload file"))

    [upload] = [each for each in found if each.name == "upload file"]
    assert (upload.session_id or None, upload.user_id) == (None, client.user_id)
    assert "notes.txt" in str(upload.metadata)
    assert thread_id in str(upload.metadata)


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
def test_a_picture_is_shown(stage: Stage, tmp_path: Path, recorder: str) -> None:
    """A picture in a message is uploaded, and each observation that shows it refers to it."""
    path, content = picture(tmp_path, 300_000)
    ran(stage, tmp_path, CHAT + END, str(path), TELEMETRY_LANGCHAIN=recorder)

    there: list[Any] = []

    def look() -> bool:
        with suppress(ApiError):
            there[:] = [stage.langfuse.media.get(media_id(content))]
        return bool(there)

    until(look, PATIENCE_S)
    assert (there[0].content_type, there[0].content_length) == ("image/png", len(content))
    assert httpx.get(there[0].url, timeout=30).content == content

    def shown() -> list[str]:
        page = stage.langfuse.observations.get_many(environment="live", fields="core,io", limit=50)
        return [each.type for each in page.data if reference(content) in str(each.input)]

    until(lambda: sorted(shown()) == ["CHAIN", "GENERATION", "GENERATION"], PATIENCE_S, lambda: str(shown()))
