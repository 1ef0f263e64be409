"""Measure the time to the first token of a turn with a photo in its history, and of one with none."""

import asyncio
import base64
import random
import time
from contextlib import nullcontext
from statistics import quantiles

from langchain_core.messages import AIMessage, HumanMessage

import telemetry
from bench.sink import sink
from bench.spool import tracing
from bench.workload import ANSWER, QUESTION, Conversation, agent, history

CONVERSATIONS = 20
TURNS = 3
PHOTO = base64.b64encode(b"\xff\xd8\xff" + random.Random(1).randbytes(1_000_000)).decode()  # noqa: S311 - the same each time


def main() -> None:
    """Print the table."""
    print(f"{'time to the first token, ms':<34}{'p50':>10}{'p99':>10}")
    with sink() as endpoint:
        for photo in (False, True):
            for traced in (False, True):
                with tracing(endpoint) if traced else nullcontext():
                    times = asyncio.run(_first_tokens(photo=photo, traced=traced))
                cut = quantiles(times, n=100)
                name = f"{'1 MB photo' if photo else 'no photo'}, {'traced' if traced else 'untraced'}"
                print(f"{name:<34}{cut[49] * 1e3:>10.1f}{cut[98] * 1e3:>10.1f}")


async def _first_tokens(*, photo: bool, traced: bool) -> list[float]:
    graph = agent(checkpointer=False)
    times: list[float] = []
    for number in range(CONVERSATIONS):
        messages = history(8)
        if photo:
            # A text of its own for each, as a client sends it anew.
            url = f"data:image/jpeg;base64,{PHOTO[:-8]}{number:08}"
            parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
            messages += [HumanMessage(parts, id=f"photo-{number}"), AIMessage(ANSWER, id=f"of-photo-{number}")]  # pyright: ignore[reportArgumentType] - parts of a message
        talk = Conversation(graph, str(number), messages, streamed=True)
        for _ in range(TURNS):
            with telemetry.span("turn", kind="AGENT") if traced else nullcontext():
                began, first = time.perf_counter(), 0.0
                async for piece in talk.send(QUESTION):
                    first = first or (time.perf_counter() if piece else 0.0)
                times.append(first - began)
    return times


if __name__ == "__main__":
    main()
