"""Attributes with which recorders and turns tell the formats what a span need not repeat. They are not sent."""

# On a node: its new messages that neither a model nor a tool wrote.
OWN_MESSAGES = "telemetry.own_messages"
# On a turn: which of "input" and "output" the root of its trace has as well.
SHOWN_ON_ROOT = "telemetry.shown_on_root"
# On the root of another framework's trace: what the agents and the models below it were asked, and what they answered.
QUESTION, ANSWER = "telemetry.question", "telemetry.answer"
# On a model call: another span below it is of the same call, with its tokens.
SAME_CALL_BELOW = "telemetry.same_call_below"
# On a hook of middleware: there are spans below it.
HAS_CHILDREN = "telemetry.has_children"
MARKS = {OWN_MESSAGES, SHOWN_ON_ROOT, QUESTION, ANSWER, SAME_CALL_BELOW, HAS_CHILDREN}
# Who records LangChain's runs; what they do not record is shown as its program wrote it.
RECORDERS = ("telemetry.recorder", "openinference.instrumentation.langchain")
