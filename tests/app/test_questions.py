"""Questions to a person: each is answered by its id, as LangChain's middleware and ours understand it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Interrupt, interrupt

from app.agents import Agent
from app.agents.tools import calculator
from app.client import AgentClient, Refused
from app.models.models import Models
from app.questions import actions_of, resume_values
from app.schema import (
    Answer,
    Approve,
    Decisions,
    DecisionType,
    Edit,
    EditedAction,
    InterruptEvent,
    Reject,
    Respond,
    UserInput,
    decision_of,
)
from tests.processes import until
from tests.service import service

MESSAGE = "What is 12*34 and what is 5*6?"
APPROVE, REJECT = Approve(type="approve"), Reject(type="reject", message="Too dear.")
EDIT = Edit(type="edit", edited_action=EditedAction(args={"expression": "2*3"}))
RESPOND = Respond(type="respond", message="42")


def approving(models: Models, checkpointer: BaseCheckpointSaver | None = None, **options: Any) -> Any:
    """LangChain's own agent with its own middleware."""
    allowed: Any = {"allowed_decisions": ["approve", "edit", "reject", "respond"]}
    middleware = HumanInTheLoopMiddleware(interrupt_on={"calculator": allowed}, **options)
    return create_agent(models.get(None), [calculator], middleware=[middleware], checkpointer=checkpointer)


def approving_each(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> Any:
    """The same with a question for each call."""
    return approving(models, checkpointer, interrupt_mode="per_call")


def asking_two(models: Models, checkpointer: BaseCheckpointSaver | None = None) -> Any:
    """Two nodes that ask at once, in words."""

    def ask(question: str) -> Any:
        return lambda _: {"messages": [AIMessage(f"{question} {interrupt(question)}")]}

    graph = StateGraph(MessagesState).add_node("first", ask("Where?")).add_node("second", ask("When?"))
    return graph.add_edge(START, "first").add_edge(START, "second").compile(checkpointer)


TABLE = {
    "batched": Agent("Asks once for all calls.", f"{__name__}:approving"),
    "each": Agent("Asks for each call.", f"{__name__}:approving_each"),
    "words": Agent("Asks two things.", f"{__name__}:asking_two"),
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[AgentClient]:
    with service(tmp_path, TABLE) as url:
        yield AgentClient(url, "batched", user_id="ada")


def ask(client: AgentClient, agent: str, message: str = MESSAGE) -> list[InterruptEvent]:
    """What the agent asks, which is what the history says it waits for."""
    client.agent = agent
    asked = [event for event in client.stream(message, thread_id="t-1") if isinstance(event, InterruptEvent)]
    assert {each.id: each for each in client.get_history("t-1").waiting} == {each.id: each for each in asked}
    return asked


def results(client: AgentClient) -> list[str]:
    return [message.content for message in client.get_history("t-1").messages if message.type == "tool"]


def test_a_question_says_what_may_be_answered(client: AgentClient) -> None:
    """Calls, arguments and the allowed decisions stand in the event, whichever way the middleware asks."""
    [question] = ask(client, "batched")
    assert [(action.name, action.args) for action in question.actions] == [
        ("calculator", {"expression": "12*34"}),
        ("calculator", {"expression": "5*6"}),
    ]
    assert {tuple(action.allowed_decisions) for action in question.actions} == {
        ("approve", "edit", "reject", "respond")
    }


DECIDED = {
    "one after another": ([APPROVE, REJECT], ["408", "Too dear."]),
    "changed": ([EDIT, APPROVE], ["6", "30"]),
    "answered": ([RESPOND, RESPOND], ["42", "42"]),
}


@pytest.mark.parametrize("case", DECIDED)
def test_decisions_reach_the_middleware(client: AgentClient, case: str) -> None:
    """Each call is made, changed, refused or answered as the person decided, each as it was meant."""
    decisions, expected = DECIDED[case]
    [question] = ask(client, "batched")
    client.invoke(answers={question.id: Decisions(decisions=decisions)}, thread_id="t-1")

    assert len(found := results(client)) == 2
    # Those that were not made are answered first.
    assert all(any(words in result for result in found) for words in expected), found
    assert client.get_history("t-1").waiting == []


def test_each_question_has_its_own_answer(client: AgentClient) -> None:
    """A question that is left out stays open; what a schema forbids is refused, and changes nothing."""
    first, second = sorted(ask(client, "each"), key=lambda each: each.actions[0].args["expression"])
    assert first.response_schema
    wrong = Edit(type="edit", edited_action=EditedAction(args={"expression": ["no", "text"]}))
    with pytest.raises(Refused, match="expression"):
        client.invoke(answers={first.id: wrong}, thread_id="t-1")

    asked_again = client.invoke(answers={first.id: EDIT}, thread_id="t-1")
    assert asked_again.custom_data["interrupt"]["id"] == second.id
    assert [each.id for each in client.get_history("t-1").waiting] == [second.id]
    client.invoke(answers={second.id: REJECT}, thread_id="t-1")
    changed, refused = sorted(results(client))
    assert changed.endswith("\n6")
    assert "Too dear." in refused


def test_the_history_says_what_was_decided(client: AgentClient) -> None:
    """Without a message of its own an answer stands there in words."""
    [question] = ask(client, "batched")
    client.invoke(answers={question.id: Decisions(decisions=[EDIT, REJECT])}, thread_id="t-1")
    said = [message.content for message in client.get_history("t-1").messages if message.type == "human"]
    assert said == [MESSAGE, "Approved with expression='2*3'\nRejected: Too dear."]


def test_a_message_answers_one_question_alone(client: AgentClient) -> None:
    """Of two open questions the message says not which it answers; answers by id reach each."""
    asked = {event.value: event.id for event in ask(client, "words", "Go")}
    with pytest.raises(Refused, match="2 questions are open") as refused:
        client.invoke("yes", thread_id="t-1")
    assert refused.value.status == 409

    client.invoke(answers={asked["Where?"]: "Here.", asked["When?"]: "Now."}, thread_id="t-1")
    said = {message.content for message in client.get_history("t-1").messages if message.type == "ai"}
    assert said == {"Where? Here.", "When? Now."}


@pytest.mark.parametrize("words", ["yes", "No, too dear."])
def test_words_decide_all_calls_of_a_question(client: AgentClient, words: str) -> None:
    """A plain yes approves, anything else is the reason why not."""
    ask(client, "batched")
    client.invoke(words, thread_id="t-1")
    assert results(client) == ["408", "30"] if words == "yes" else all(words in each for each in results(client))


def test_a_background_run_takes_answers(client: AgentClient) -> None:
    """What is wrong is refused when it is submitted, not when it runs."""
    [question] = ask(client, "batched")
    with pytest.raises(Refused, match="2 calls"):
        client.submit(answers={question.id: Decisions(decisions=[APPROVE])}, thread_id="t-1")
    run = client.submit(answers={question.id: Decisions(decisions=[APPROVE, APPROVE])}, thread_id="t-1")
    until(lambda: client.get_run(run.run_id).status == "completed", 60)
    assert results(client) == ["408", "30"]


REFUSED: Mapping[str, tuple[Any, int, str]] = {
    "nothing": ({"model": "demo"}, 422, "Send a message"),
    "no such question": ({"answers": {"nobody": "yes"}}, 409, "No question nobody"),
    "no such decision": ({"answers": {"q": {"type": "perhaps"}}}, 409, "No question q"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_answers_nothing_is_refused(client: AgentClient, case: str) -> None:
    """Without a question there is nothing to answer."""
    body, status, words = REFUSED[case]
    with pytest.raises(Refused, match=words) as refused:
        client.invoke(thread_id="t-1", **body)
    assert refused.value.status == status


ACTIONS = {"action_requests": [{"name": "pay", "args": {}}], "review_configs": []}
NOT_ALLOWED: list[tuple[Any, Answer, str]] = [
    (ACTIONS | {"review_configs": [{"action_name": "pay", "allowed_decisions": ["approve"]}]}, EDIT, "allows approve"),
    (ACTIONS, {"type": "perhaps"}, "asks for a decision"),
    (ACTIONS, Decisions(decisions=[APPROVE, APPROVE]), "about 1 calls"),
    ({"action": {"name": "pay"}, "allowed_decisions": ["approve", "respond"]}, REJECT, "allows approve, respond"),
]


@pytest.mark.parametrize(("value", "answer", "words"), NOT_ALLOWED)
def test_what_a_question_does_not_allow_is_refused(value: Any, answer: Answer, words: str) -> None:
    """The sentence says what it allows."""
    with pytest.raises(Exception, match=words):
        resume_values([Interrupt(value, "q")], UserInput(answers={"q": answer}))


@pytest.mark.parametrize(
    ("answer", "allowed", "decision"),
    [
        ("Yes, please.", ["approve", "reject"], APPROVE),
        ("Too dear.", ["approve", "reject"], REJECT),
        ("42", ["approve", "respond"], RESPOND),
        (EDIT, ["edit"], EDIT),
        (EDIT.model_dump(), ["edit"], EDIT),
    ],
)
def test_words_are_read_alike_everywhere(answer: object, allowed: list[DecisionType], decision: object) -> None:
    """The chat, the service and an agent make the same decision of the same words."""
    assert decision_of(answer, allowed) == decision


OTHERS: list[Any] = [
    None,
    "Shall I?",
    7,
    [],
    {"question": "Shall I?"},
    {"action_requests": 1, "review_configs": []},
    {"action_requests": [{}], "review_configs": [{}]},
    {"type": "tool_approval"},
    {"action": {"name": 7}},
    {"action": {"name": "pay"}, "allowed_decisions": ["sing"]},
]


@pytest.mark.parametrize("value", OTHERS)
def test_any_other_value_is_answered_in_words(value: Any) -> None:
    """What only resembles a known shape asks for no decision, and breaks nothing."""
    assert actions_of(Interrupt(value, "q")) == []
    assert resume_values([Interrupt(value, "q")], UserInput(message="Yes.")) == {"q": "Yes."}
