"""The viewer beside Phoenix, on the same 3,000 traces: `python -m bench.viewer_peer PHOENIX_PYTHON`.

The argument is the Python of an environment with `arize-phoenix`, which is no dependency of this project. Each asks for
what its page shows: the viewer for the page itself, Phoenix for the fields of its tables by GraphQL. The figures are
processor times of the server's process, since what else runs on a machine does not change them much.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.viewer import WIDE, Server, fill, free_port, started, viewer
from bench.viewer_traces import wide_trace

TRACES = 3_000
WORD = "refund"
REPEATS = 5
PATHS = {"viewer": "/api/public/otel/v1/traces", "Phoenix": "/v1/traces"}
FIELDS = "name spanKind statusCode startTime latencyMs tokenCountTotal"
LIST = f"""
query($id: ID!, $only: String) {{ node(id: $id) {{ ... on Project {{
    spans(first: 50, filterCondition: $only, sort: {{col: startTime, dir: desc}}) {{ edges {{ node {{
        {FIELDS} input {{ truncatedValue }} output {{ truncatedValue }} trace {{ traceId }}
    }} }} }}
}} }} }}"""
# A page has at most 1,000 spans.
SPANS = f"""
query($id: ID!, $trace: ID!, $after: String) {{ node(id: $id) {{ ... on Project {{ trace(traceId: $trace) {{
    spans(first: 1000, after: $after) {{
        pageInfo {{ hasNextPage endCursor }} edges {{ node {{ id parentId endTime {FIELDS} }} }}
    }}
}} }} }} }}"""

Looks = Mapping[str, Callable[[], None]]


@contextmanager
def phoenix(python: str, folder: Path) -> Iterator[Server]:
    """Start Phoenix with its files in this folder."""
    port = free_port()
    env = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    argv = [python, "-m", "phoenix.server.main", "serve"]
    with started(argv, env, f"http://127.0.0.1:{port}", "/healthz", [folder]) as server:
        yield server


def looks_at_viewer(server: Server) -> Looks:
    """Return what a reader looks at in the viewer."""
    pages = "/project/local/traces"
    opened = {_opens(size): f"{pages}/{_id(size)}" for size in WIDE}
    addresses = {"list 50 traces": pages, "find a word": f"{pages}?text={WORD}", **opened}

    def look(address: str) -> Callable[[], None]:
        return lambda: server.client.get(server.url + address).raise_for_status()

    return {title: look(address) for title, address in addresses.items()}


def looks_at_phoenix(server: Server) -> Looks:
    """Return the same in Phoenix."""
    projects = server.client.get(f"{server.url}/v1/projects").json()["data"]
    project = next(each["id"] for each in projects if each["name"] == "default")

    def ask(query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": {"id": project, **variables}}
        answer = server.client.post(f"{server.url}/graphql", json=body).json()
        if "errors" in answer:
            raise RuntimeError(str(answer["errors"]))
        return answer["data"]["node"]

    def open_trace(size: int) -> None:
        after, more = None, True
        while more:
            page = ask(SPANS, trace=_id(size), after=after)["trace"]["spans"]["pageInfo"]
            after, more = page["endCursor"], page["hasNextPage"]

    def opens(size: int) -> Callable[[], None]:
        return lambda: open_trace(size)

    return {
        "list 50 traces": lambda: ask(LIST, only="parent_id is None"),
        "find a word": lambda: ask(LIST, only=f"parent_id is None and '{WORD}' in input.value"),
        **{_opens(size): opens(size) for size in WIDE},
    }


def measure(name: str, server: Server) -> dict[str, str]:
    """Fill a server, and return its figures."""
    fill(server, PATHS[name], TRACES)
    for size in WIDE:
        server.post(PATHS[name], wide_trace(size, time.time_ns()))
    before = -1.0
    while server.cpu_s() - before > 0.5:  # Phoenix stores in the background
        before = server.cpu_s()
        time.sleep(5)
    found = {"take 3,000 traces": f"{server.cpu_s():.1f} s"}
    for title, look in (looks_at_viewer if name == "viewer" else looks_at_phoenix)(server).items():
        look()
        begun = server.cpu_s()
        for _ in range(REPEATS):
            look()
        found[title] = f"{(server.cpu_s() - begun) / REPEATS:.2f} s"
    return found | {
        "memory": f"{server.resident_mb('VmHWM'):.0f} MB",
        "size on disk": f"{server.disk_mb():.0f} MB",
    }


def main(python: str) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        with viewer(Path(one)) as server:
            ours = measure("viewer", server)
        with phoenix(python, Path(other)) as server:
            theirs = measure("Phoenix", server)
    print("| | viewer | Phoenix |\n|---|---:|---:|")
    for title, figure in ours.items():
        print(f"| {title} | {figure} | {theirs[title]} |")


def _opens(size: int) -> str:
    return f"open {size:,} spans"


def _id(size: int) -> str:
    return wide_trace(size, 0)[0].trace_id


if __name__ == "__main__":
    main(sys.argv[1])
