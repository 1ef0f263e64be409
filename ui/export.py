"""Export a thread as a document."""

from app.schema import ChatHistory
from ui import texts
from ui.exchange import Exchange, SubAgent, ToolUse, from_history


def as_markdown(title: str, history: ChatHistory) -> str:
    """Return the questions and answers of a thread as Markdown, with the names of the tools that were used."""
    parts = [f"# {' '.join(title.split())}"]
    for exchange in from_history(history):
        parts += [f"**{texts.EXPORTED_QUESTION}** {exchange.question}"] if exchange.question else []
        parts += [f"**{texts.EXPORTED_ANSWER}** {answer}"] if (answer := answer_of(exchange)) else []
        parts += [f"*{exchange.error}*"] if exchange.error else []
    return "\n\n".join(parts) + "\n"


def as_json(history: ChatHistory) -> str:
    """Return everything that the service knows of a thread as JSON."""
    return history.model_dump_json(indent=2)


def answer_of(exchange: Exchange) -> str:
    """Return the text of an answer as Markdown, tools and sub-agents by name."""
    said: list[str] = []
    for part in exchange.parts:
        match part:
            case str():
                said.append(part)
            case ToolUse():
                said.append(f"*{texts.exported_tool(part.name)}*")
            case SubAgent():
                said.append(f"*{texts.exported_sub_agent(part.name)}*")
            case _:
                continue
    return "\n\n".join(said)
