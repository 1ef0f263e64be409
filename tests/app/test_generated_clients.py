"""The contract as tools of others read it: generated clients that work, and requests that nobody thought of.

They are installed by the test, which takes a minute: `make matrix` runs it, or `pytest -m matrix`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.test_contract import SNAPSHOT
from tests.parts import missing
from tests.service import service, user_token

pytestmark = pytest.mark.matrix

SECRET = "s" * 32
CALLS = """
import sys
from agent_service_client import AuthenticatedClient
from agent_service_client.api.default import feedback, history, history_of_agent, invoke, list_threads
from agent_service_client.models import Feedback, HistoryInput, UserInput

client = AuthenticatedClient(sys.argv[1], sys.argv[2])
answer = invoke.sync(client=client, body=UserInput(message="What is 6 * 7?", thread_id="t-1"))
assert "42" in answer.content, answer
asked = HistoryInput(thread_id="t-1")
for read in (history.sync(client=client, body=asked), history_of_agent.sync("chatbot", client=client, body=asked)):
    assert [message.type_ for message in read.messages] == ["human", "ai", "tool", "ai"], read
voted = feedback.sync_detailed(client=client, body=Feedback(run_id=answer.run_id, key="stars", score=1.0))
assert voted.status_code < 300, voted
assert [thread.thread_id for thread in list_threads.sync(client=client).threads] == ["t-1"]
refused = history.sync(client=client, body=HistoryInput(thread_id="nobodys"))
assert refused.detail == "There is no thread nobodys."
"""
# Data that the schema cannot describe is refused with 422, such as an unknown model; and logins are throttled.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of schemathesis and openapi-python-client, in an environment of their own."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    commands = folder / "bin"
    packages = ["schemathesis", "openapi-python-client", "ruff"]
    subprocess.run([commands / "python", "-m", "pip", "install", "-q", *packages], check=True)
    return commands


@pytest.fixture(params=["open", "with a secret"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A service that asks nobody who they are, and one that does."""
    secret = SECRET if request.param == "with a secret" else None
    with service(tmp_path, AUTH_SECRET=secret) as address:
        yield address


def run(*command: object, folder: Path) -> str:
    env = {**os.environ, "PATH": f"{Path(str(command[0])).parent}{os.pathsep}{os.environ['PATH']}"}
    line = [str(part) for part in command]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_request_breaks_it_or_gets_an_undeclared_answer(tools: Path, url: str, tmp_path: Path) -> None:
    """Generated requests, also those that follow from the answers to others."""
    authorization = f"Authorization: Bearer {user_token('ada', SECRET)}"
    options = ("--checks", CHECKS, "--max-examples", "40", "--exclude-path-regex", "stream|events", "--no-color")
    printed = run(tools / "st", "run", f"{url}/openapi.json", "-H", authorization, *options, folder=tmp_path)
    assert "24 selected / 28 total" in printed


def test_a_generated_python_client_works(tools: Path, url: str, tmp_path: Path) -> None:
    """It invokes an agent, reads the thread, votes, and is refused in words."""
    run(tools / "openapi-python-client", "generate", "--path", SNAPSHOT, "--output-path", "client", folder=tmp_path)
    (tmp_path / "client" / "calls.py").write_text(CALLS)
    run(tools / "python", "calls.py", url, user_token("ada", SECRET), folder=tmp_path / "client")


def test_generated_typescript_types_compile(tmp_path: Path) -> None:
    """A front end in TypeScript knows every path, and the fields of a message."""
    if not shutil.which("npx"):
        missing("npx", "apt-get install npm")
    run("npx", "--yes", "openapi-typescript@7", SNAPSHOT, "-o", "contract.ts", folder=tmp_path)
    use = 'import type { components } from "./contract";\n'
    use += 'export const text = (message: components["schemas"]["ChatMessage"]): string => message.content;\n'
    (tmp_path / "use.ts").write_text(use)
    run("npx", "--yes", "-p", "typescript@5", "tsc", "--noEmit", "--strict", "use.ts", folder=tmp_path)
