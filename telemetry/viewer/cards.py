"""The tools that a model was offered and the documents that were found, as cards."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from telemetry.viewer.observation import Observation, parsed, text

TOOL = re.compile(r"llm\.tools\.\d{1,6}\.tool\.json_schema")
DOCUMENT = re.compile(r"(retrieval|reranker\.output)\.documents\.(\d{1,6})\.document\.(content|id|score|metadata)")
CONTENTS = ("page_content", "content", "text", "pageContent")
DOCUMENTS = 200


@dataclass(frozen=True)
class ToolCard:
    """A tool that a model may call."""

    name: str
    description: str
    parameters: Any


@dataclass(frozen=True)
class DocumentCard:
    """A document that was found, and its score."""

    content: str
    id: str
    score: str
    metadata: Any


def tool_cards(observation: Observation) -> list[ToolCard]:
    """Return the tools of a model call, each once."""
    parameters = observation.model_parameters
    offered = [
        *(parsed(value) for name, value in sorted(observation.attributes.items()) if TOOL.fullmatch(name)),
        *_listed(parsed(observation.attributes.get("gen_ai.tool.definitions"))),
        *_listed(parameters.get("tools") if isinstance(parameters, Mapping) else None),
    ]
    cards = (_tool(each) for each in offered if isinstance(each, Mapping))
    return list({card.name: card for card in cards if card.name}.values())


def document_cards(observation: Observation) -> list[DocumentCard]:
    """Return the documents of a retrieval."""
    numbered: dict[tuple[str, int], dict[str, Any]] = {}
    for name, value in observation.attributes.items():
        if found := DOCUMENT.fullmatch(name):
            numbered.setdefault((found[1], int(found[2])), {})[found[3]] = value
    documents = [fields for _, fields in sorted(numbered.items())]
    if not documents and observation.type == "RETRIEVER":
        documents = list(_documents(parsed(observation.output)))
    return [_document(fields) for fields in documents[:DOCUMENTS]]


def _listed(value: Any) -> list[Any]:
    return [parsed(each) for each in value] if isinstance(value, list) else []


def _tool(given: Mapping[str, Any]) -> ToolCard:
    tool = given["function"] if isinstance(given.get("function"), Mapping) else given
    parameters = next((tool[name] for name in ("parameters", "input_schema", "args_schema") if tool.get(name)), None)
    return ToolCard(text(tool.get("name") or ""), text(tool.get("description") or ""), parameters)


def _documents(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("documents", "output", "results") if name in value), None)
    for each in value if isinstance(value, list) else []:
        inner = each.get("kwargs") if isinstance(each, Mapping) else None
        fields = inner if isinstance(inner, Mapping) else each
        if not isinstance(fields, Mapping) or not any(fields.get(name) for name in CONTENTS):
            return
        yield dict(fields)


def _document(fields: Mapping[str, Any]) -> DocumentCard:
    content = next((fields[name] for name in CONTENTS if fields.get(name)), "")
    metadata = parsed(fields.get("metadata"))
    score = fields.get("score", metadata.get("score") if isinstance(metadata, Mapping) else None)
    return DocumentCard(
        text(content), text(fields.get("id") or ""), "" if score is None else text(score), metadata or None
    )
