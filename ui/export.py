"""Export a thread as a document."""

from app.schema import ChatHistory
from ui.exchange import Exchange, SubAgent, ToolUse, from_history


def as_markdown(title: str, history: ChatHistory) -> str:
    """Return the questions and answers of a thread as Markdown, with the names of the tools that were used."""
    parts = [f"# {' '.join(title.split())}"]
    for exchange in from_history(history):
        parts += [f"**You:** {exchange.question}"] if exchange.question else []
        parts += [f"**Agent:** {answer}"] if (answer := answer_of(exchange)) else []
        parts += [f"*{exchange.error}*"] if exchange.error else []
    return "\n\n".join(parts) + "\n"


def as_json(history: ChatHistory) -> str:
    """Return everything that the service knows of a thread as JSON."""
    return history.model_dump_json(indent=2)


def answer_of(exchange: Exchange) -> str:
    """Return the text of an answer as Markdown, tools and sub-agents by name."""
    texts: list[str] = []
    for part in exchange.parts:
        match part:
            case str():
                texts.append(part)
            case ToolUse():
                texts.append(f"*Used {part.name}.*")
            case SubAgent():
                texts.append(f"*Asked {part.name}.*")
            case _:
                continue
    return "\n\n".join(texts)
