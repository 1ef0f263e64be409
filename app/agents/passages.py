"""A small corpus on tracing, and a retriever over it."""

import re
from collections.abc import Mapping

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

PASSAGES: Mapping[str, str] = {
    "Trace": "A trace is everything that one request caused, told as a tree of spans that share one id.",
    "Span": "A span is one piece of work with a name, a start, an end, attributes and at most one parent.",
    "Root span": "The root span has no parent. Its input and output are shown as those of the whole trace.",
    "Context propagation": "The traceparent header carries the ids of trace and parent from caller to callee.",
    "Baggage": "Baggage travels beside the traceparent as key and value. Every host that is called reads it.",
    "Sampling": "Sampling keeps some traces and drops the others, by chance at the start or by merit at the end.",
    "Exporter": "An exporter sends finished spans to a backend. What it cannot send in time, it must keep or lose.",
    "Collector": "A collector receives spans, changes or samples them, and sends them on to one or more backends.",
    "Session": "A session groups the traces of one conversation, so that its turns can be read in their order.",
    "Score": "A score is a judgement on a trace or a span: a person's thumb, a rule's verdict, a model's grade.",
    "Redaction": "Redaction removes secrets from a span before it is stored, for what was never stored cannot leak.",
    "Span link": "A link points from a span to another trace, as from a resumed run to the one that had to wait.",
}


class KeywordRetriever(BaseRetriever):
    """Finds the passages that share the most words with the query; a word of the title counts twice."""

    passages: Mapping[str, str]
    limit: int = 2

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the base's signature
    ) -> list[Document]:
        words = keywords(query)
        scores = {title: score(words, title, text) for title, text in self.passages.items()}
        best = sorted((title for title in scores if scores[title]), key=lambda title: -scores[title])
        return [
            Document(self.passages[title], metadata={"title": title, "score": scores[title]})
            for title in best[: self.limit]
        ]


def keywords(text: str) -> set[str]:
    """Return the words of four letters or more, without a plural's s."""
    return {word.removesuffix("s") for word in re.findall(r"\w{4,}", text.lower())}


def score(words: set[str], title: str, text: str) -> int:
    """Return how well a passage fits these words."""
    return 2 * len(words & keywords(title)) + len(words & keywords(text))
