"""Which models there are, and a real OpenAI client through them over a real socket."""

from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from openai import AuthenticationError, BadRequestError

from app.agents.tools import calculator, current_time
from app.models.demo_model import DemoModel
from app.models.models import ModelSettingError, UnknownModelError, load_model, load_models
from app.models.openai_chat import ChatOpenAI
from tests.openai_server import OpenAIServer, openai_server


@pytest.fixture(autouse=True)
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


def point_to(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    with openai_server() as running:
        point_to(running, monkeypatch)
        yield running


async def streamed(asked: list[BaseMessage] | str) -> AIMessageChunk:
    model = load_model("openai:some-model").bind_tools([calculator, current_time])
    whole, *rest = [chunk async for chunk in model.astream(asked)]
    for chunk in rest:
        whole += chunk
    assert isinstance(whole, AIMessageChunk)
    return whole


@pytest.mark.parametrize("name", [None, "", "demo"])
def test_without_a_setting_it_is_the_demo(name: str | None) -> None:
    """No name and `demo` give the demo model, at the pace asked for."""
    model = load_model(name, demo_pace_s=0.5)
    assert isinstance(model, DemoModel)
    assert model.pace_s == 0.5


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gpt-5", "write provider:name"),
        ("openai:", "write provider:name"),
        ("nobody:model", "nobody"),
        ("anthropic:claude", "pip install langchain-anthropic"),
        ("openai:gpt-5", "OPENAI_API_KEY"),
    ],
)
def test_a_bad_model_is_refused_in_one_sentence(name: str, remedy: str) -> None:
    """A form, provider, package or key that is missing is named, with the model, on one line."""
    with pytest.raises(ModelSettingError) as refusal:
        load_model(name)
    assert str(refusal.value).startswith(f"MODEL={name}")
    assert remedy in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty key is a missing one, and an empty base URL leads to OpenAI itself."""
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(ModelSettingError, match="set OPENAI_API_KEY"):
        load_model("openai:gpt-5")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
    model = load_model("openai:gpt-5")
    assert isinstance(model, ChatOpenAI)
    assert model.openai_api_base == "https://api.openai.com/v1"


@pytest.mark.parametrize("key", ["sk-any\n", " sk-any", "sk any", "sk-\u00e4ny", "sk-any\r\n", "\u201csk-any\u201d"])
def test_a_key_that_cannot_be_sent_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A key that was copied with a line break or a quotation mark is named at start, and not shown."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ModelSettingError, match="OPENAI_API_KEY contains") as refusal:
        load_model("openai:gpt-5")
    assert "sk" not in str(refusal.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "localhost/v1", "//localhost/v1", "ftp://localhost/v1"])
def test_a_base_url_without_scheme_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """An address that no request can be sent to is named at start."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ModelSettingError, match=r"OPENAI_BASE_URL=.*begin it with http"):
        load_model("openai:gpt-5")


def test_a_caller_chooses_among_those_offered() -> None:
    """The default and the others are offered, each once; anything else is refused by naming them."""
    models = load_models("demo", ["demo"])
    assert models.names == ["demo"]
    assert models.get(None) is models.get("demo") is models.chosen({})
    assert models.chosen({"configurable": {"model": "demo"}}) is models.get("demo")
    with pytest.raises(UnknownModelError, match=r"'gpt-0'; choose one of: demo\.$"):
        models.get("gpt-0")


@pytest.mark.usefixtures("server")
def test_the_default_is_offered_first() -> None:
    """The setting's default comes before the others, whatever their order."""
    assert load_models("openai:b", ["demo", "openai:a", "openai:b"]).names == ["openai:b", "demo", "openai:a"]


async def test_a_stream_over_the_wire_reports_words_and_usage(server: OpenAIServer) -> None:
    """With a base URL set, usage still arrives at the end of a stream."""
    answer = await streamed("hello")
    assert answer.text.startswith("Hello!")
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == len(answer.text.split())
    assert answer.response_metadata["finish_reason"] == "stop"
    assert server.received[0].headers["authorization"] == f"Bearer {server.key}"


@pytest.mark.usefixtures("server")
async def test_an_answer_in_one_piece() -> None:
    """Not streamed, the same words and usage come back."""
    answer = await load_model("openai:some-model").ainvoke("hello")
    assert answer.text == DemoModel().invoke("hello").text
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata


@pytest.mark.usefixtures("server")
async def test_tool_calls_over_the_wire() -> None:
    """Two calls streamed in fragments arrive whole, and the answer to them is said."""
    question = HumanMessage("what is 12*34 and what time is it in Europe/Berlin")
    asked = await streamed([question])
    calls = asked.tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [
        ("calculator", {"expression": "12*34"}),
        ("current_time", {"timezone": "Europe/Berlin"}),
    ]
    results = [ToolMessage(str(number), tool_call_id=call["id"] or "") for number, call in enumerate(calls)]
    answer = await streamed([question, asked, *results])
    assert answer.text == "The calculator tool says: 0\nThe current_time tool says: 1"


@pytest.mark.usefixtures("server")
async def test_an_unanswered_call_is_refused() -> None:
    """The server takes no conversation with a tool call left open, as OpenAI takes none."""
    question = HumanMessage("what is 12*34")
    with pytest.raises(BadRequestError, match="must be followed by tool messages"):
        await streamed([question, await streamed([question]), HumanMessage("hello?")])


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_server_that_refuses_to_be_asked_for_usage(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Any refusal of `stream_options` costs one request, once for the model, and no answer."""
    with openai_server(knows_stream_options=False, refusal_status=status) as server:
        point_to(server, monkeypatch)
        model = load_model("openai:some-model")
        first = "".join([chunk.text async for chunk in model.astream("hello")])
        second = "".join([chunk.text for chunk in model.stream("hello")])
    assert first == second == DemoModel().invoke("hello").text
    assert ["stream_options" in request.body for request in server.received] == [True, False, False]


async def test_other_refusals_are_not_repeated(server: OpenAIServer) -> None:
    """A 400 for anything else is raised after one request."""
    dangling = AIMessage("", tool_calls=[{"name": "x", "args": {}, "id": "1", "type": "tool_call"}])
    with pytest.raises(BadRequestError):
        await streamed([dangling])
    assert len(server.received) == 1


@pytest.mark.usefixtures("server")
async def test_a_wrong_key_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the server does not know ends in an error that says so without repeating it."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(AuthenticationError, match="Incorrect API key") as refusal:
        await load_model("openai:some-model").ainvoke("hello")
    assert "sk-wrong" not in str(refusal.value)
