"""The service's HTTP contract: what clients send and what comes back."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_json

MAX_MESSAGE = 100_000


def _without_nul(text: str) -> str:
    # Postgres keeps none.
    if "\0" in text:
        raise ValueError("a NUL character cannot be kept: leave it out")
    return text


WithoutNul = AfterValidator(_without_nul)
Message = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_MESSAGE), WithoutNul]
THREAD_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$"
ThreadId = Annotated[str, StringConstraints(pattern=THREAD_ID)]
USER_ID = r"^[^\x00-\x1f\x7f/\\]{1,128}$"
VOTE_KEY = r"^[A-Za-z0-9][A-Za-z0-9 _.:-]{0,99}$"
EVENT_KEY = r"^[a-z][a-z0-9_]{0,39}$"
TRACE_ID = r"^[0-9a-f]{32}$"
UserId = Annotated[str, StringConstraints(pattern=USER_ID)]
# SQLite keeps no time zone; what the service writes is UTC.
Moment = Annotated[datetime, AfterValidator(lambda moment: moment if moment.tzinfo else moment.replace(tzinfo=UTC))]


class UserInput(BaseModel):
    """One user message for an agent."""

    model_config = ConfigDict(extra="forbid")

    message: Message
    model: str | None = Field(None, max_length=200, description="one that /info lists")
    thread_id: ThreadId | None = Field(None, description="a new conversation without it")
    user_id: UserId | None = None
    agent_config: dict[str, Any] = Field(default_factory=dict)


class StreamInput(UserInput):
    """One user message whose answer is streamed."""

    stream_tokens: bool = True


class HistoryInput(BaseModel):
    """The thread whose messages are asked for."""

    model_config = ConfigDict(extra="forbid")

    thread_id: ThreadId
    user_id: UserId | None = None


class ToolCall(BaseModel):
    """A tool that the model asks for."""

    name: str
    args: dict[str, Any]
    id: str | None = None


class ChatMessage(BaseModel):
    """One message of a conversation."""

    type: Literal["human", "ai", "tool", "custom"]
    content: str
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    run_id: str | None = None
    trace_id: str | None = None
    response_metadata: dict[str, Any] = Field(default_factory=dict)
    custom_data: dict[str, Any] = Field(default_factory=dict)


class Figures(BaseModel):
    """What a turn took; what is not known is left out."""

    duration_ms: int | None = None
    first_token_ms: int | None = None
    input_tokens: int | None = Field(default=None, description="of all its model calls that said so")
    output_tokens: int | None = None
    cost: float | None = Field(default=None, description="in dollars, where the model has a price in MODEL_PRICES")


class Vote(BaseModel):
    """What its user thinks of a run, under one key."""

    key: str
    score: bool | float | str
    comment: str | None = None


class TurnInfo(BaseModel):
    """One run of a thread: how it ended, where its trace is shown, what was thought of it."""

    run_id: str
    trace_id: str | None = None
    trace_url: str | None = Field(None, description="none where the trace was not kept")
    status: str
    error: str | None = None
    began: Moment
    asked: list[Any] = Field(default_factory=list, description="what it asked the person before it could go on")
    figures: Figures = Figures()
    votes: list[Vote] = Field(default_factory=list)


class InterruptEvent(BaseModel):
    """The agent waits for a person; the next message on the thread is the answer."""

    type: Literal["interrupt"] = "interrupt"
    id: str
    value: Any


class ChatHistory(BaseModel):
    """The messages of one thread, oldest first, its turns, and what it waits for."""

    messages: list[ChatMessage]
    agent: str | None = Field(default=None, description="who answered last")
    trace_urls: dict[str, str] = Field(default_factory=dict, description="trace id -> page, where it is known")
    turns: list[TurnInfo] = Field(default_factory=list, description="oldest first")
    waiting: list[InterruptEvent] = Field(default_factory=list, description="the next message answers all of them")
    files: list["FileInfo"] = Field(default_factory=list, description="oldest first")


class Feedback(BaseModel):
    """What a user thinks of a run; `score` null takes it back."""

    model_config = ConfigDict(extra="forbid")

    run_id: str = Field(min_length=1, max_length=128)
    key: str = Field(pattern=VOTE_KEY, description="what is judged, such as stars")
    score: StrictBool | FiniteFloat | Annotated[str, StringConstraints(min_length=1, max_length=500)] | None
    comment: Annotated[str, WithoutNul] | None = Field(None, max_length=5_000)
    kwargs: dict[str, Any] = Field(default_factory=dict, description="kept beside the score; a comment may be in it")
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
            raise ValueError("half of a surrogate pair is no text: leave it out") from None
        return kwargs


class FeedbackAnswer(BaseModel):
    """What became of a score, per place: `sent`, `queued`, or `skipped: …`."""

    status: Literal["success"] = "success"
    trace_id: str | None
    kept: bool = Field(True, description="whether the trace is: one that was dropped comes back for a while only")
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
    """Where the action was recorded, None where it was not."""

    trace_id: str | None


class FileInfo(BaseModel):
    """What is known of a file, with the trace of the asking and the thread's latest run."""

    file_id: str
    thread_id: str
    name: str
    size: int
    type: str = Field(description="media type, by the file's content")
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
    """A file that is no longer there."""

    file_id: str
    trace_id: str | None = None
    run_id: str | None = None


class ThreadInfo(BaseModel):
    """A conversation; its title is the beginning of what was said first."""

    thread_id: str
    title: str
    agent: str
    created: Moment
    updated: Moment


class ThreadList(BaseModel):
    """A user's conversations, the latest first."""

    threads: list[ThreadInfo]


class ThreadState(BaseModel):
    """Where a conversation stands: its latest run, in the background or not; none before the first."""

    thread_id: str
    run_id: str | None = None
    status: str | None = None


class ThreadRemoved(BaseModel):
    """A conversation that is no longer there, with its messages and files."""

    thread_id: str


RunStatus = Literal["queued", "running", "waiting", "completed", "failed", "cancelled", "lost"]


class RunInfo(BaseModel):
    """Where a background run stands; `trace_id` is that of the asking and of the first attempt."""

    run_id: str
    thread_id: str
    agent: str
    status: RunStatus
    trace_id: str | None = None
    trace_ids: list[str] = Field(default_factory=list, description="one for each attempt")
    trace_url: str | None = Field(None, description="of `trace_id`; none where the trace was not kept")
    error: str | None = None
    message: str = Field("", description="what was asked")
    created: Moment | None = None


class RunList(BaseModel):
    """A user's background runs, the latest first."""

    runs: list[RunInfo]


class AgentInfo(BaseModel):
    """An agent, and why it cannot be talked to where it could not be loaded."""

    key: str
    description: str
    error: str | None = None


class ServiceInfo(BaseModel):
    """What the service offers."""

    agents: list[AgentInfo]
    models: list[str]
    default_agent: str
    default_model: str
    backend: str | None = Field(None, description="who shows the traces, where that is known: Langfuse")


SUB_AGENT: str | None = Field(
    None, description="the sub-agent that it comes from, as name:id; none for the agent itself"
)


class RunEvent(BaseModel):
    """The first event of a stream: which run, in which trace."""

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


class MessageEvent(BaseModel):
    """A whole message: an answer, a tool call or a tool's result."""

    type: Literal["message"] = "message"
    content: ChatMessage
    agent: str | None = SUB_AGENT


class TaskEvent(BaseModel):
    """How far a task of the agent is."""

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
    """The last event of a stream."""

    type: Literal["end"] = "end"
    status: Literal["completed", "failed", "cancelled", "waiting"]
    kept: bool = True
    trace_url: str | None = None
    figures: Figures | None = None


StreamEvent = Annotated[
    RunEvent | TokenEvent | MessageEvent | InterruptEvent | TaskEvent | ErrorEvent | EndEvent,
    Field(discriminator="type"),
]
