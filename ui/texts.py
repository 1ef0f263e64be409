"""All texts that people read on the chat's pages, in one file, so that they can be translated.

What the service says comes from the service. Streamlit has texts of its own, such as the names of the buttons in the
message field.
"""

from collections.abc import Mapping

# The language of these texts, for screen readers, and its direction: "ltr" or "rtl".
LANGUAGE = "en"
DIRECTION = "ltr"

# The page, and logging in.
PAGE_TITLE = "Agent chat"
LOG_IN = "Log in"
LOG_OUT = "Log out"


def log_in_with(provider: str) -> str:
    return f"Log in with {provider}"


def header_missing(header: str) -> str:
    return f"The request has no {header} header: open this page through its proxy."


def header_unreadable(header: str) -> str:
    return f"The {header} header is not UTF-8: correct the proxy."


# Several parts of the page.
CANCEL = "Cancel"
DELETE = "Delete"
SEND = "Send"

# Errors and outages.
PAGE_FAILED = "The page failed; see its log."
RUN_SILENT = "The service has not answered for a long time: reload the page to follow the run again."
STILL_ANSWERED_ELSEWHERE = "This chat is still being answered elsewhere: wait for it, or stop it."
START_THE_SERVICE = "Start it with `python -m app`, or set `AGENT_URL` to where it runs."
TRY_AGAIN = "Try again"
RECONNECTING = "Reconnecting … What you see is the latest that this page knows."


def trace_id(trace: str) -> str:
    return f"Trace {trace}"


# What answers, above the message field.
AGENT = "Agent"
MODEL = "Model"


def only_model(name: str) -> str:
    return f"{MODEL}: {name}"


def agent_not_loaded(error: str) -> str:
    return f"This agent could not be loaded: {error}"


# The sidebar: chats.
NEW_CHAT = "New chat"
IN_BACKGROUND = "Answer in the background"
IN_BACKGROUND_HELP = "The answer continues without this page."
CHATS = "Chats"
SEARCH_CHATS = "Search chats"
SEARCH_PLACEHOLDER = "Search in all that was said"
NOTHING_FOUND = "These words were said in no chat."
TODAY = "Today"
YESTERDAY = "Yesterday"
EARLIER = "Earlier"
OLDER_CHATS = "Older ones"
CHAT_RUNNING = "It is being answered"
CHAT_WAITING = "The agent has a question"
CHAT_UNSEEN = "There is a new answer"
UNDO = "Undo"
DELETION_CONSEQUENCES = "This deletes its messages and files; traces and scores are kept."
TOO_LATE_TO_UNDO = "It is too late: this chat has been deleted."


def delete_chat(title: str) -> str:
    return f"{DELETE} {title}"


def deleted(title: str) -> str:
    return f"Deleted: {title}"


# The sidebar: more about the open chat.
MORE_ABOUT_CHAT = "More about this chat"
CHAT_TITLE = "Title"
COPY_LINK = "Copy link"
EXPORT_MARKDOWN = "Export as Markdown"
EXPORT_JSON = "Export as JSON"
EXPORT_FILE_NAME = "chat"

# The sidebar: background runs.
BACKGROUND_RUNS = "Background runs"
RUN_STATUSES: Mapping[str, str] = {
    "queued": "queued",
    "running": "running",
    "lost": "lost",
    "waiting": "waiting",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}

# An empty chat.
WELCOME = "What can I do for you?"
DEMO_NOTE = "The demo model follows a few rules and uses no language model. Examples:"

# The message field, and what waits above it.
YOUR_MESSAGE = "Your message"
YOUR_ANSWER = "Your answer"
DO_NOT_SEND = "Do not send"
BYTE_UNITS = ("B", "kB", "MB", "GB")


def next_message(message: str) -> str:
    return f"Next: {message}"


def do_not_send(message: str) -> str:
    return f"{DO_NOT_SEND} {message}"


# The conversation.
TO_END = "To the end"


def show_earlier(turns: int) -> str:
    return f"Show earlier turns ({turns})"


# What an agent does for its answer.
REASONING = "Reasoning"
INPUT = "Input"
OUTPUT = "Output"
NO_OUTPUT = "(nothing)"
TASK_RESULTS: Mapping[str, str] = {"success": "done", "error": "failed", "cancelled": "stopped"}


def using(tool: str) -> str:
    return f"Using {tool} …"


def used(tool: str) -> str:
    return f"Used {tool}"


def asked_for(tool: str) -> str:
    return f"Asked for {tool}"


def failed(tool: str) -> str:
    return f"{tool} failed"


def sub_agent(name: str) -> str:
    return f"Sub-agent {name}"


def steps_done(done: float, steps: float) -> str:
    return f"{done} of {steps}"


# While an answer is written.
THINKING = "Thinking …"
QUEUED_IN_BACKGROUND = "In the background: queued …"
WORKING_IN_BACKGROUND = "Working in the background …"
STOP = "Stop"
STOPPING = "Stopping …"
CANCEL_RUN = "Cancel"
CANCELLING_RUN = "Cancelling …"

# What is below an answer.
STOPPED = "Stopped."
NOT_FINISHED = "Not finished: it is being answered elsewhere, or was cut off."
RETRY = "Retry"
SEND_WITHOUT_FILE = "Send without it"
COPY = "Copy"
COPIED = "Copied"
NOT_COPIED = "Not copied"
VIEW_TRACE = "View trace"


def view_in(backend: str) -> str:
    return f"View in {backend}"


def tokens(read: int, written: int) -> str:
    return f"{read} tokens in, {written} out"


def cost(dollars: str) -> str:
    return f"${dollars}"


def first_word_after(seconds: float) -> str:
    return f"first word after {duration(seconds)}"


def duration(seconds: float, digits: int = 1) -> str:
    # A number and its unit stay on one line.
    return f"{seconds:.{digits}f}\N{NO-BREAK SPACE}s"


# Feedback.
COMMENT = "Comment"
COMMENT_QUESTION = "What was good or wrong?"
THANK_YOU = "Thank you"
TAKEN_BACK = "Taken back"
SCORE_SENT = "stored"
SCORE_QUEUED = "queued, it will be sent"
SCORE_TRACE = "trace"


def score_skipped(reason: str) -> str:
    return f"not stored, {reason}"


def feedback_failed(error: str) -> str:
    return f"Your feedback was not taken: {error}"


# The steps of a turn.
STEPS = "Steps"
NO_STEPS = "The service knows no steps of this answer: it was not recorded, or an earlier release gave it."
STEP_FAILED = "failed"


def step_tokens(read: int, written: int) -> str:
    return f"{read} → {written} tokens"


# Versions of a question and its answer.
PREVIOUS_VERSION = "Previous version"
NEXT_VERSION = "Next version"
REGENERATE = "Regenerate"
REGENERATE_HELP = "Ask again; this answer stays as a version"
EDIT = "Edit"
EDIT_MESSAGE = "Edit this message"
EDITED_MESSAGE = "Edited message"
EDIT_CONSEQUENCES = "What follows is answered anew; this version stays."
CONTINUE = "Continue"
# It is sent as a message.
CONTINUE_MESSAGE = "Continue where you stopped."

# Questions of an agent, and decisions about its tool calls.
DECISIONS: Mapping[str, str] = {
    "approve": "Approve",
    "edit": "Approve with changes",
    "reject": "Reject",
    "respond": "Answer instead",
}
REASON = "Reason or answer"
REASON_PLACEHOLDER = "Reason or answer (optional)"
CHANGE_DECISION = "Change"
ARGUMENTS_INVALID = "The arguments are not a JSON object: correct them, and approve again."


def arguments_of(tool: str) -> str:
    return f"Arguments of {tool}"


# What screen readers are told when an answer begins and ends.
ANSWER_BEGINS = "The answer is being written."
ANSWER_FAILED = "The answer failed."
ANSWER_COMPLETE = "The answer is complete."
ANSWER_ENDS: Mapping[str, str] = {"cancelled": "The answer was stopped.", "waiting": "The agent has a question."}

# A chat that is exported as Markdown.
EXPORTED_QUESTION = "You:"
EXPORTED_ANSWER = "Agent:"


def exported_tool(name: str) -> str:
    return f"Used {name}."


def exported_sub_agent(name: str) -> str:
    return f"Asked {name}."
