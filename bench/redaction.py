"""Measure what redaction costs by the kind of text: CPU time for a kilobyte, and how often that of prose."""

import base64
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from telemetry.export.redact import Redactor

ROOT = Path(__file__).parents[1]
SIZE = 50_000
WORDS = (
    "the",
    "service",
    "keeps",
    "each",
    "thread",
    "of",
    "a",
    "conversation",
    "and",
    "shows",
    "its",
    "turns",
    "in",
    "order",
)
# What may be followed by a secret.
BEGINNINGS = (
    "ghp_",
    "key-",
    "AKIA",
    "eyJ",
    "://",
    "--token ",
    "curl -u ",
    "mysql -p",
    "password: ",
    "cookie: ",
    "Bearer ",
    "&lt;",
    "%20",
    "\n",
    " ",
    '"',
    "a1B",
)


def main() -> None:
    """Print a table, prose first."""
    redact = Redactor().redact_text
    print(f"{'text':<24}{'us per kB':>12}{'x prose':>10}")
    prose = 0.0
    for name, text in texts().items():
        cost = us_per_kb(redact, text)
        prose = prose or cost
        print(f"{name:<24}{cost:>12.1f}{cost / prose:>10.1f}")


def texts() -> Mapping[str, str]:
    """Return texts of the same size, from what is common to what is made to cost most."""
    made = random.Random(1)  # noqa: S311 - the same text each time
    code = "".join(path.read_text() for path in sorted(ROOT.glob("telemetry/**/*.py")))
    lines = (f"2026-11-30 12:{at % 60:02}:00 INFO [worker-{at}] request {at * 71} took {at} ms\n" for at in range(900))
    given = {
        "prose": " ".join(made.choices(WORDS, k=SIZE // 4)),
        "log": "".join(lines),
        "code": code,
        "base64": base64.b64encode(made.randbytes(SIZE)).decode(),
        "percent-encoded": "the%20best%20of%2C%20" * SIZE,
        "HTML entities": "&lt;p&gt;it&#39;s text&lt;/p&gt;" * SIZE,
        "JSON escapes, cut": '"Gr\\u00f6\\u00dfe und Ma\\u00df ' * SIZE,
        "page": "<p>What a page says &amp; more, with <a href='https://e.org/a%20b?q=1'>a link</a>.</p>\n" * SIZE,
        "JSON": json.dumps([{"id": at, "name": f"Größe {at}", "text": "Straße und Maß"} for at in range(600)]),
        "prose on passwords": "The password: see the docs. A token is read, API keys: made in settings. " * SIZE,
        "token = tokens[i]": "token = tokens[i]\n" * SIZE,
        'password = "…"': 'password = "open sesame"\n' * SIZE,
        "beginnings of keys": "".join(made.choices(BEGINNINGS, k=SIZE)),
    }
    return {name: text[:SIZE] for name, text in given.items()}


def us_per_kb(redact: Callable[[str], str], text: str, rounds: int = 7) -> float:
    """Return the least CPU time of some rounds, in microseconds for a kilobyte."""
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        redact(text)
        best = min(best, time.thread_time() - began)
    return best * 1e9 / len(text.encode())


if __name__ == "__main__":
    main()
