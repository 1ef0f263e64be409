"""A front end without keys: its spans go through the service, and arrive with the service's own."""

import gzip
import hmac
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telemetry.testing import Receiver, span_tree
from tests.processes import ROOT, UNSET, free_port, start
from tests.service import user_token

SECRET = "a secret of more than thirty-two characters"
HASH_KEY = "the key of the users' hash"
PSEUDONYM = hmac.new(HASH_KEY.encode(), b"ada", "sha256").hexdigest()[:20]
FRONT_END = """
import sys
import telemetry
from app.client import AgentClient
telemetry.configure("agent-ui")
client = AgentClient(sys.argv[1], "chatbot", auth_secret=sys.argv[2], user_id="ada")
with telemetry.scope(session_id="t-1", user_id="ada", agent="chatbot"), telemetry.span("chat turn") as span:
    span.set_attribute("note", "the key is sk-proj-" + "a1B2" * 12)
    client.invoke("Hello", thread_id="t-1")
telemetry.shutdown()
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def service(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tmp_path = tmp_path_factory.mktemp("service")
    url = f"http://127.0.0.1:{free_port()}"
    env = {
        "PORT": url.rsplit(":", 1)[1],
        "DATA_DIR": str(tmp_path),
        "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
        "AUTH_SECRET": SECRET,
        "LANGFUSE_HOST": receiver.endpoint,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
        "LANGFUSE_SECRET_KEY": "sk-lf-1",
        "TELEMETRY_USER_HASH_KEY": HASH_KEY,
    }
    with start([sys.executable, "-m", "app"], env, f"{url}/health"):
        yield url


@pytest.mark.parametrize("hash_key", ["", HASH_KEY])
def test_a_front_end_needs_no_key(receiver: Receiver, service: str, tmp_path: Path, hash_key: str) -> None:
    """With the service's address and bearer alone the front end's spans reach the backend, in one tree, redacted.

    Its user has one pseudonym, whether the front end has the key to it or not.
    """
    before = len(receiver.spans)
    env = {
        **UNSET,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{service}/otlp",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {SECRET}",
        "TELEMETRY_SPOOL_DIR": str(tmp_path / "front-end"),
        "TELEMETRY_USER_HASH_KEY": hash_key,
    }
    done = subprocess.run(
        [sys.executable, "-c", FRONT_END, service, SECRET],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    whole = {"chat turn", "POST /{agent_id}/invoke", "turn", "DemoModel"}
    receiver.wait(lambda spans: whole <= {span.name for span in spans[before:]})
    arrived = receiver.spans[before:]

    assert span_tree(arrived).startswith("chat turn\n  POST agent-api /{agent_id}/invoke CLIENT\n    POST /{ag")
    assert {span.resource["service.name"] for span in arrived} == {"agent-ui", "agent-api"}
    assert {span.attributes["user.id"] for span in arrived} == {"user-" + PSEUDONYM}
    assert not any(b"a1B2" in request.body for request in receiver.requests)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"", 401),
        ({"Authorization": "Bearer wrong"}, b"", 401),
        ({"Authorization": "Bearer " + user_token("ada", SECRET)}, b"", 403),
        ({"Authorization": f"Bearer {SECRET}"}, b"garbage", 400),
        ({"Authorization": f"Bearer {SECRET}"}, b"x" * 8_000_001, 413),
        ({"Authorization": f"Bearer {SECRET}", "Content-Encoding": "gzip"}, gzip.compress(b"0" * 9_000_000), 413),
    ],
)
def test_what_is_refused(service: str, receiver: Receiver, headers: dict[str, str], body: bytes, status: int) -> None:
    """Only a front end's bearer is taken, and only spans within the limits."""
    before = len(receiver.spans)
    response = httpx.post(
        f"{service}/otlp/v1/traces", content=body, headers={"Content-Type": "application/x-protobuf", **headers}
    )

    assert response.status_code == status
    assert response.json()["detail"]
    assert len(receiver.spans) == before
