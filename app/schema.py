"""The service's HTTP contract: what clients send and what comes back."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SecretStr,
    StrictBool,
    StringConstraints,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_json

from telemetry.moment import Moment

MAX_MESSAGE = 100_000


def _without_nul(text: str) -> str:
    # Postgres keeps none.
    if "\0" in text:
        raise ValueError("a NUL character cannot be stored: remove it")
    return text


WithoutNul = AfterValidator(_without_nul)
Message = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_MESSAGE), WithoutNul]
THREAD_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$"
ThreadId = Annotated[str, StringConstraints(pattern=THREAD_ID)]
USER_ID = r"^[^\x00-\x1f\x7f/\\]{1,128}$"
VOTE_KEY = r"^[A-Za-z0-9][A-Za-z0-9 _.:-]{0,99}$"
EVENT_KEY = r"^[a-z][a-z0-9_]{0,39}$"
TRACE_ID = r"^[0-9a-f]{32}$"
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), WithoutNul]
UserId = Annotated[str, StringConstraints(pattern=USER_ID)]


def decode_header(value: str) -> str:
    """Return the text of a header in UTF-8, which servers read as Latin-1; raise ValueError where it is none."""
    return value.encode("latin-1").decode()


def check_bearer(secret: SecretStr) -> SecretStr:
    """Return a secret that can be sent in a header as it is; raise ValueError for others."""
    value = secret.get_secret_value()
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(
            "cannot be sent in a header: use printable ASCII characters, without leading or trailing spaces"
        )
    return secret


DecisionType = Literal["approve", "edit", "reject", "respond"]


class Action(BaseModel):
    """A call of a tool that waits for a decision."""

    name: str
    args: dict[str, Any]
    description: str = ""
    allowed_decisions: list[DecisionType]


class Approve(BaseModel):
    """Make the call."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["approve"]


class EditedAction(BaseModel):
    """The call to make instead of the proposed one."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, description="the tool; default: the same one")
    args: dict[str, Any]


class Edit(BaseModel):
    """Make the call with other arguments."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["edit"]
    edited_action: EditedAction


class Reject(BaseModel):
    """Do not make the call; the agent gets the reason."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["reject"]
    message: Annotated[str, WithoutNul] | None = Field(default=None, max_length=MAX_MESSAGE, description="the reason")


class Respond(BaseModel):
    """Do not make the call; the agent gets this text as its result."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["respond"]
    message: Message


Decision = Annotated[Approve | Edit | Reject | Respond, Field(discriminator="type")]


ALL_DECISIONS: tuple[DecisionType, ...] = ("approve", "edit", "reject", "respond")
CONSENT = frozenset({"yes", "y", "ok", "okay", "sure", "please", "approve", "approved"})
_DECISION: TypeAdapter[Decision] = TypeAdapter(Decision)


class Decisions(BaseModel):
    """The decisions about the calls of one question, in their order."""

    model_config = ConfigDict(extra="forbid")

    decisions: Annotated[list[Decision], Field(min_length=1, max_length=100)]


Answer = Annotated[Message | Decisions | Decision | dict[str, Any], Field(union_mode="left_to_right")]


class UserInput(BaseModel):
    """One user message for an agent, or the answers to its questions."""

    model_config = ConfigDict(extra="forbid")

    message: Message | None = Field(default=None, description="optional with `answers`; default: their text")
    answers: dict[str, Answer] = Field(
        default_factory=dict,
        max_length=100,
        description="by the ids of the open questions; omitted ones stay open",
    )
    model: str | None = Field(default=None, max_length=200, description="a model that /info lists")
    thread_id: ThreadId | None = Field(default=None, description="default: a new conversation")
    replaces: str | None = Field(
        default=None,
        max_length=128,
        description="a run of the thread whose question is asked again, or with another `message`: the conversation "
        "goes on from what was said before it, and the earlier version stays",
    )
    user_id: UserId | None = None
    agent_config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_something(self) -> "UserInput":
        if self.replaces and (self.answers or not self.thread_id):
            raise ValueError("`replaces` needs its `thread_id`, and no `answers`")
        if not self.message and not self.answers and not self.replaces:
            raise ValueError("send a message, or answers to open questions")
        return self

    @property
    def text(self) -> str:
        """What the user says, for the thread's history."""
        return self.message or "\n".join(words_of(answer) for answer in self.answers.values())


def agrees(answer: object) -> bool:
    """Return whether the answer's first word is a yes."""
    words = str(answer).lower().replace(",", " ").strip(" .!").split()
    return bool(words) and words[0] in CONSENT


def decision_of(answer: object, allowed: Collection[DecisionType] = ALL_DECISIONS) -> Decision:
    """Return the decision that an answer is; words approve, or are the reason for a rejection.

    Where a rejection is not allowed, words are the call's result.
    """
    if isinstance(answer, dict | BaseModel):
        return _DECISION.validate_python(answer)
    if agrees(answer):
        return Approve(type="approve")
    words = str(answer)
    return Reject(type="reject", message=words) if "reject" in allowed else Respond(type="respond", message=words)


def words_of(answer: Answer) -> str:
    """Return an answer in words."""
    match answer:
        case Decisions():
            return "\n".join(map(words_of, answer.decisions))
        case Edit():
            args = ", ".join(f"{name}={value!r}" for name, value in answer.edited_action.args.items())
            return f"Approved with {args or 'no arguments'}"
        case Reject():
            return f"Rejected: {answer.message}" if answer.message else "Rejected"
        case Respond():
            return answer.message
        case Approve():
            return "Approved"
        case str():
            return answer
        case _:
            return to_json(answer).decode()


class StreamInput(UserInput):
    """One user message whose answer is streamed."""

    stream_tokens: bool = True
    on_disconnect: Literal["cancel", "continue"] = Field(
        default="cancel",
        description="the turn, if its reader is lost; one that continues can be rejoined: /runs/{run_id}/events",
    )


class HistoryInput(BaseModel):
    """The thread whose messages to return."""

    model_config = ConfigDict(extra="forbid")

    thread_id: ThreadId
    user_id: UserId | None = None


class ToolCall(BaseModel):
    """A tool call of the model."""

    name: str
    args: dict[str, Any]
    id: str | None = None


class ChatMessage(BaseModel):
    """One message of a conversation."""

    type: Literal["human", "ai", "tool", "custom"]
    content: str
    reasoning: str = Field(default="", description="what the model said to itself before this, if it tells")
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    run_id: str | None = None
    trace_id: str | None = None
    response_metadata: dict[str, Any] = Field(default_factory=dict)
    custom_data: dict[str, Any] = Field(default_factory=dict)


class Figures(BaseModel):
    """The figures of a turn; unknown ones are omitted."""

    duration_ms: int | None = None
    first_token_ms: int | None = None
    input_tokens: int | None = Field(default=None, description="of all its model calls that report them")
    output_tokens: int | None = None
    cost: float | None = Field(default=None, description="in dollars, if the model has a price in MODEL_PRICES")


class Vote(BaseModel):
    """A user's vote on a run, under one key."""

    key: str
    score: bool | float | str
    comment: str | None = None


class TurnInfo(BaseModel):
    """One run of a thread: its outcome, the page of its trace, and its votes."""

    run_id: str
    trace_id: str | None = None
    trace_url: str | None = Field(default=None, description="null if the trace was not kept")
    status: str
    error: str | None = None
    began: Moment
    resumed: bool = Field(default=False, description="whether it answered a question of the agent")
    versions: list[str] = Field(
        default_factory=list, description="all runs that are versions of this one, oldest first; none if it is the only"
    )
    asked: list[Any] = Field(default_factory=list, description="its question to a person")
    figures: Figures = Figures()
    votes: list[Vote] = Field(default_factory=list)


class InterruptEvent(BaseModel):
    """The agent waits for a person; the next message on the thread is the answer, or `answers` has one by this id."""

    type: Literal["interrupt"] = "interrupt"
    id: str
    value: Any
    actions: list[Action] = Field(default_factory=list, description="the tool calls to decide about")
    response_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the answer, if there is one"
    )


class ChatHistory(BaseModel):
    """The messages of one thread, oldest first, its turns, and its open questions."""

    messages: list[ChatMessage]
    agent: str | None = Field(default=None, description="the agent that answered last")
    trace_urls: dict[str, str] = Field(default_factory=dict, description="the page of each trace id, if it is known")
    turns: list[TurnInfo] = Field(default_factory=list, description="oldest first, in the versions that are shown")
    waiting: list[InterruptEvent] = Field(default_factory=list, description="answer several by their ids")
    files: list["FileInfo"] = Field(default_factory=list, description="oldest first")


class Feedback(BaseModel):
    """A user's score for a run; a `score` of null deletes it."""

    model_config = ConfigDict(extra="forbid")

    run_id: str = Field(min_length=1, max_length=128)
    key: str = Field(pattern=VOTE_KEY, description="what is rated, such as stars")
    score: StrictBool | FiniteFloat | Annotated[str, StringConstraints(min_length=1, max_length=500)] | None
    comment: Annotated[str, WithoutNul] | None = Field(default=None, max_length=5_000)
    kwargs: dict[str, Any] = Field(default_factory=dict, description="stored with the score; may contain a comment")
    user_id: UserId | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_comment(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(kwargs := given.get("kwargs"), dict):
            return given
        rest = {name: value for name, value in kwargs.items() if name != "comment"}
        return {**given, "kwargs": rest, "comment": given.get("comment") or kwargs.get("comment")}

    @field_validator("kwargs")
    @classmethod
    def _can_be_written(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            to_json(kwargs)
        except PydanticSerializationError:
            raise ValueError("an unpaired surrogate is not text: remove it") from None
        return kwargs


class FeedbackAnswer(BaseModel):
    """The status of a score at each backend: `sent`, `queued`, or `skipped: …`."""

    status: Literal["success"] = "success"
    trace_id: str | None
    kept: bool = Field(True, description="whether the trace is kept; a dropped one can be restored for a while only")
    run_id: str
    score_id: str | None
    places: dict[str, str]


class FrontendEvent(BaseModel):
    """One action of a user in a front end."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["page_load", "file_upload", "stop", "feedback"]
    thread_id: ThreadId | None = None
    user_id: UserId | None = None
    about: dict[
        Annotated[str, StringConstraints(pattern=EVENT_KEY)],
        StrictBool | FiniteFloat | Annotated[str, StringConstraints(max_length=200)],
    ] = Field(default_factory=dict, max_length=20)


class EventAnswer(BaseModel):
    """The trace of the action, null if it was not recorded."""

    trace_id: str | None


class FileInfo(BaseModel):
    """The metadata of a file, with the trace of this request and the thread's latest run."""

    file_id: str
    thread_id: str
    name: str
    size: int
    type: str = Field(description="media type, detected from the file's content")
    sha256: str
    created: Moment
    trace_id: str | None = None
    run_id: str | None = None


class FileList(BaseModel):
    """The files of one thread, oldest first."""

    files: list[FileInfo]
    trace_id: str | None = None
    run_id: str | None = None


class FileRemoved(BaseModel):
    """A deleted file."""

    file_id: str
    trace_id: str | None = None
    run_id: str | None = None


class ThreadInfo(BaseModel):
    """A conversation; its title is the beginning of its first message, or what its user has named it."""

    thread_id: str
    title: str
    status: str | None = Field(default=None, description="of its latest run; null before the first")
    agent: str
    created: Moment
    updated: Moment


class ThreadChange(BaseModel):
    """What to change of a conversation; omitted fields stay as they are."""

    model_config = ConfigDict(extra="forbid")

    title: Title | None = None
    version: str | None = Field(
        default=None, max_length=128, description="a run: show the conversation with it that was continued last"
    )
    user_id: UserId | None = None


class ThreadList(BaseModel):
    """A user's conversations, the latest first."""

    threads: list[ThreadInfo]


class ThreadState(BaseModel):
    """The state of a conversation: its latest run, in the background or not; null before the first."""

    thread_id: str
    run_id: str | None = None
    status: str | None = None


class ThreadRemoved(BaseModel):
    """A deleted conversation, with its messages and files."""

    thread_id: str


class CancelAnswer(BaseModel):
    """The status of a run after the request to cancel it: `cancelling`, or its final status."""

    run_id: str
    status: str


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    detail: str = Field(description="what is wrong, and what to do")
    trace_id: str | None = Field(default=None, description="the trace of the request, if it is recorded")


class SpanInfo(BaseModel):
    """A span of a turn, without its content; `depth` is that below the turn's own span, which is the first."""

    name: str
    kind: str | None = Field(default=None, description="LLM, TOOL, CHAIN and the like")
    depth: int
    start_ms: int = Field(description="after the turn's beginning")
    duration_ms: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    failed: bool = False


class SpanList(BaseModel):
    """The spans of a turn that is over, as a tree in depth-first order; none if it was not recorded."""

    spans: list[SpanInfo]


RunStatus = Literal["queued", "running", "waiting", "completed", "failed", "cancelled", "lost"]


class RunInfo(BaseModel):
    """The state of a background run; `trace_id` is the trace of its request and of its first attempt."""

    run_id: str
    thread_id: str
    agent: str
    status: RunStatus
    trace_id: str | None = None
    trace_ids: list[str] = Field(default_factory=list, description="one for each attempt")
    trace_url: str | None = Field(default=None, description="the page of `trace_id`; null if the trace was not kept")
    error: str | None = None
    message: str = Field("", description="the question")
    created: Moment | None = None


class RunList(BaseModel):
    """A user's background runs, the latest first."""

    runs: list[RunInfo]


class AgentInfo(BaseModel):
    """An agent, with the reason if it could not be loaded."""

    key: str
    description: str
    error: str | None = None
    title: str | None = Field(default=None, description="its name for users")
    starters: list[str] = Field(default_factory=list, description="example messages that show what it can do")


class Connections(BaseModel):
    """The process's connections to its database; requests wait while all of them are in use."""

    in_use: int
    most: int


class Health(BaseModel):
    """The state of the process: it is running, and `ready` if it can use its database."""

    status: Literal["ok"]
    ready: bool
    connections: Connections


class ServiceInfo(BaseModel):
    """What the service offers."""

    agents: list[AgentInfo]
    models: list[str]
    default_agent: str
    default_model: str
    backend: str | None = Field(default=None, description="the backend that shows the traces, if it is known: Langfuse")


SUB_AGENT: str | None = Field(
    None, description="the sub-agent that it comes from, as name:id; none for the agent itself"
)


class RunEvent(BaseModel):
    """The first event of a stream, with the ids of the run and the trace."""

    type: Literal["run"] = "run"
    run_id: str
    trace_id: str | None
    thread_id: str
    sampled: bool | Literal["pending"]
    trace_url: str | None = None


class TokenEvent(BaseModel):
    """A piece of the answer."""

    type: Literal["token"] = "token"
    content: str
    agent: str | None = SUB_AGENT
    message_id: str | None = Field(
        default=None, description="the message that it is a piece of: pieces of another begin anew"
    )


class ReasoningEvent(BaseModel):
    """A piece of what a model says to itself before its answer."""

    type: Literal["reasoning"] = "reasoning"
    content: str
    agent: str | None = SUB_AGENT


class InnerTokenEvent(BaseModel):
    """A piece of what a model said to a tool or a middleware of the agent; it is not part of the answer."""

    type: Literal["inner_token"] = "inner_token"
    content: str
    node: str = Field(description="the node of the agent's graph that called the model, such as tools")
    agent: str | None = SUB_AGENT


class MessageEvent(BaseModel):
    """A whole message: an answer, a tool call or a tool's result."""

    type: Literal["message"] = "message"
    content: ChatMessage
    agent: str | None = SUB_AGENT


class TaskEvent(BaseModel):
    """The progress of a task of the agent."""

    type: Literal["task"] = "task"
    task_id: str
    name: str
    state: Literal["started", "progress", "finished"]
    result: Literal["success", "error", "cancelled"] | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class ErrorEvent(BaseModel):
    """The turn failed."""

    type: Literal["error"] = "error"
    error: str
    message: str
    trace_id: str | None = None


class EndEvent(BaseModel):
    """The last event of a stream; `stored` is whether the thread's history has the turn's end already."""

    type: Literal["end"] = "end"
    status: Literal["completed", "failed", "cancelled", "waiting"]
    stored: bool = True
    kept: bool = True
    trace_url: str | None = None
    figures: Figures | None = None


StreamEvent = Annotated[
    RunEvent
    | TokenEvent
    | ReasoningEvent
    | InnerTokenEvent
    | MessageEvent
    | InterruptEvent
    | TaskEvent
    | ErrorEvent
    | EndEvent,
    Field(discriminator="type"),
]
