"""What an agent asks a person with LangGraph's `interrupt`, and how an answer is given to it.

A question is a value of any kind, and is answered in words. Three kinds ask for decisions about calls of tools: both
kinds of LangChain's `HumanInTheLoopMiddleware` (one question for all calls of a message, or one for each), and a
question with an `action` and its `allowed_decisions`, for agents without that middleware.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import HTTPException
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from langgraph.types import Interrupt
from pydantic import BaseModel, ValidationError

from app.schema import (
    ALL_DECISIONS,
    Action,
    Answer,
    Decision,
    Decisions,
    DecisionType,
    Edit,
    InterruptEvent,
    UserInput,
    decision_of,
)


def interrupt_event(interrupt: Interrupt) -> InterruptEvent:
    """Return the event that tells a client of the question, and what it may be answered."""
    return InterruptEvent(
        id=interrupt.id, value=interrupt.value, actions=actions_of(interrupt), response_schema=schema_of(interrupt)
    )


def actions_of(interrupt: Interrupt) -> list[Action]:
    """Return the calls that the question is about, in its order; none where it is answered in words alone."""
    try:
        return _actions_of(interrupt)
    except (KeyError, TypeError, ValidationError):
        # It only resembles one of the known kinds.
        return []


def schema_of(interrupt: Interrupt) -> dict[str, Any] | None:
    """Return the JSON schema of the answer, where the agent names one; LangGraph has it from release 1.2 on."""
    schema = getattr(interrupt, "response_schema", None)
    return schema if isinstance(schema, dict) else None


def resume_values(interrupts: Sequence[Interrupt], request: UserInput) -> dict[str, Any]:
    """Return what each open question is resumed with: its own answer, or the message where it is the only one.

    Raise 409 for an answer to a question that is not open, and for a message where several are; 422 for an answer that
    the question does not allow.
    """
    by_id, answers = {interrupt.id: interrupt for interrupt in interrupts}, request.answers
    if unknown := sorted(answers.keys() - by_id.keys()):
        raise HTTPException(409, f"No question {', '.join(unknown)} is open here: /history lists those that are.")
    if not answers and len(by_id) > 1:
        raise HTTPException(
            409, f"{len(by_id)} questions are open here: answer them by their ids in `answers`: {', '.join(by_id)}."
        )
    given = answers or dict.fromkeys(by_id, request.text)
    return {interrupt_id: _resume_value(by_id[interrupt_id], answer) for interrupt_id, answer in given.items()}


def _actions_of(interrupt: Interrupt) -> list[Action]:
    match interrupt.value:
        case {"action_requests": [*requests], "review_configs": [*reviews]}:
            allowed = {each["action_name"]: each["allowed_decisions"] for each in reviews}
            return [_action(each, allowed.get(each["name"], ALL_DECISIONS)) for each in requests]
        case {"type": "tool_approval", **action}:
            return [_action(action, _allowed_by(schema_of(interrupt)))]
        case {"action": {"name": str()} as action, **question}:
            described = {"description": str(question.get("question", "")), **action}
            return [_action(described, question.get("allowed_decisions", ALL_DECISIONS))]
        case _:
            return []


def _action(action: Mapping[str, Any], allowed: Iterable[DecisionType]) -> Action:
    return Action(
        name=action["name"],
        args=action.get("args", {}),
        description=action.get("description") or "",
        allowed_decisions=list(allowed),
    )


def _allowed_by(schema: Mapping[str, Any] | None) -> Sequence[DecisionType]:
    """Return the decisions of a schema that tells them apart by their `type`."""
    schema = schema or {}
    named = schema.get("discriminator", {}).get("mapping") or [
        schema.get("properties", {}).get("type", {}).get("const")
    ]
    return [decision for decision in ALL_DECISIONS if decision in named] or ALL_DECISIONS


def _resume_value(interrupt: Interrupt, answer: Answer) -> Any:
    actions = actions_of(interrupt)
    if not actions:
        value = answer.model_dump(exclude_none=True) if isinstance(answer, BaseModel) else answer
        _check(value, schema_of(interrupt))
        return value
    if isinstance(answer, dict):
        raise HTTPException(
            422, f'Question {interrupt.id} asks for a decision: send {{"type": "approve"}} or the like.'
        )
    if isinstance(answer, str):
        decisions = [answer] * len(actions)
    else:
        decisions = answer.decisions if isinstance(answer, Decisions) else [answer]
    if len(decisions) != len(actions):
        raise HTTPException(
            422, f"Question {interrupt.id} is about {len(actions)} calls: send as many `decisions`, in their order."
        )
    values = [_decision_value(*each) for each in zip(decisions, actions, strict=True)]
    value = {"decisions": values} if "action_requests" in interrupt.value else values[0]
    _check(value, schema_of(interrupt))
    return value


def _decision_value(decision: Decision | str, action: Action) -> dict[str, Any]:
    """Return the decision as LangChain's middleware takes it; words agree, answer for the tool, or say why not."""
    decision = decision_of(decision, action.allowed_decisions)
    if decision.type not in action.allowed_decisions:
        raise HTTPException(422, f"{action.name} allows {', '.join(action.allowed_decisions)}, not {decision.type}.")
    if isinstance(decision, Edit):
        edited = decision.edited_action
        return {"type": "edit", "edited_action": {"name": edited.name or action.name, "args": edited.args}}
    return decision.model_dump(exclude_none=True)


def _check(value: Any, schema: dict[str, Any] | None) -> None:
    if schema and (error := best_match(Draft202012Validator(schema).iter_errors(value))):
        place = ".".join(map(str, error.absolute_path)) or "the answer"
        raise HTTPException(422, f"{place}: {error.message}.")
