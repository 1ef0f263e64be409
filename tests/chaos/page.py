"""A page's process without its page: turns as the chat makes them, one line of JSON for each."""

import json
import sys
from collections.abc import Iterable

import telemetry
from app.client import AgentClient
from telemetry import tail_sampling
from ui.turn_registry import ChatTurn


def main(url: str, messages: Iterable[str]) -> None:
    telemetry.configure("agent-ui")
    client = AgentClient(url, "chatbot", user_id="ada")
    for number, line in enumerate(messages):
        message = line.strip()
        turn = ChatTurn(client, f"t{number}", message)
        turn.start()
        turn.wait(60)
        seen = turn.exchange()
        if message == "liked" and seen.trace_id and not seen.kept:
            tail_sampling.keep_trace(seen.trace_id, True)
            with telemetry.suppress_instrumentation():
                client.keep(seen.trace_id)
        _say({"trace": seen.trace_id, "message": message, "status": seen.status, "kept": seen.kept})
    telemetry.shutdown()
    _say({"message": "end"})


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], iter(sys.stdin.readline, ""))
