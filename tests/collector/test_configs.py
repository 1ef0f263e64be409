import base64
import dataclasses
import gzip
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.export import otlp
from telemetry.testing import Receiver
from tests import processes
from tests.collector.otelcol import CONFIGS, HEADERS, Collector, span, validate

BOTH = "[otlp_http/backend, otlp_http/second]"
WATCHED = "[otlp_http/backend, debug]"
SECRETS = (
    "sk-lf-0f8a1c52-6f0b-4d39-9d3b-d2f4b1a7c001",
    "sk-proj-Zx81hQ2mV0pLr5tYw9Kc3NbEa7DfGu6J",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "xoxb-2048-4096-AbCdEfGhIjKlMnOp",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "Bearer q83vEjRWeJCrze8SNFZ4kKvN7xI0Vnia",
    "hunter2@db",
)
KEEP_ALL = "processors::tail_sampling: {decision_wait: 1s}"


def overlay(config: str) -> str:
    return KEEP_ALL if config == "tail" else ""


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("exporters", [None, BOTH, WATCHED])
def test_every_configuration_is_valid(config: str, exporters: str | None, tmp_path: Path) -> None:
    """The collector that we build accepts each configuration, with each set of exporters."""
    env = {"COLLECTOR_ENDPOINT": "http://127.0.0.1:9", "COLLECTOR_STATE": str(tmp_path)}
    result = validate(config, env | ({"COLLECTOR_EXPORTERS": exporters} if exporters else {}))
    assert (result.returncode, result.stderr) == (0, "")


def test_a_missing_backend_is_refused() -> None:
    """Without an address of a backend the collector does not start."""
    result = validate("stateless", {})
    assert result.returncode != 0
    assert "endpoint must be specified" in result.stderr


@pytest.mark.parametrize("config", CONFIGS)
def test_a_span_reaches_langfuse_as_it_was_made(config: str, backend: Receiver, tmp_path: Path) -> None:
    """A span comes out as it went in, but for the sampler's mark, compressed, with the headers that Langfuse wants."""
    basic = "Basic " + base64.b64encode(b"pk-lf-local:sk-lf-local").decode()
    made = span("turn", status="ERROR", **{"session.id": "thread-7", "llm.token_count.total": 12})
    env = {"COLLECTOR_AUTHORIZATION": basic}
    with Collector(config, f"{backend.endpoint}/api/public/otel", tmp_path, env, overlay(config)) as collector:
        assert collector.send(made) == 200
        [arrived] = backend.wait()
    assert dataclasses.replace(arrived, trace_state="") == made
    request = backend.requests[0]
    assert request.path == "/api/public/otel/v1/traces"
    assert request.headers["authorization"] == basic
    assert request.headers["x-langfuse-ingestion-version"] == "4"
    assert request.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("config", CONFIGS)
def test_secrets_do_not_pass_the_second_fence(config: str, backend: Receiver, tmp_path: Path) -> None:
    """What looks like a secret is masked in names, values, lists, events, the status, and under telling names."""
    dsn = "postgres://ada:hunter2@db/agents"
    planted = {f"planted.{n}": f"before {text} after" for n, text in enumerate((*SECRETS[:-1], dsn))}
    made = dataclasses.replace(
        span(" ".join(SECRETS[:-1]), status="ERROR"),
        attributes={**planted, "list": [SECRETS[0]], "http.request.header.authorization": ["hush"]},
        message=f"401 for {SECRETS[1]}, at {dsn}",
        events=[otlp.Event(f"failed with {SECRETS[5]}", 1_700_000_000_100_000_000, {"exception.message": SECRETS[2]})],
    )
    with Collector(config, backend.endpoint, tmp_path, overlay=overlay(config)) as collector:
        collector.send(made)
        [arrived] = backend.wait()
    assert not [text for text in (*SECRETS, "hush") if text in repr(arrived)]
    assert arrived.attributes["planted.2"] == "before **** after"
    assert arrived.name == " ".join(["****"] * 7)
    assert arrived.message == "401 for ****, at postgres****db/agents"


def test_the_fence_stands_around_resource_and_scope_too(backend: Receiver, tmp_path: Path) -> None:
    """Secrets in what a request says of its process and of its library are masked; its links are as they were."""
    link = otlp.Link("1" * 32, "2" * 16, {"langfuse.link": "resumes"})
    made = dataclasses.replace(span(), resource={"process.command_line": f"run {SECRETS[0]}"}, links=[link])
    request = ExportTraceServiceRequest.FromString(otlp.encode(otlp.RedactedSpan.of(made)))
    scope = request.resource_spans[0].scope_spans[0].scope
    scope.attributes.add(key="dsn").value.string_value = f"key {SECRETS[2]}"
    scope.attributes.add(key="api_key").value.string_value = "hush"
    with Collector("stateless", backend.endpoint, tmp_path) as collector:
        url = f"{collector.endpoint}/v1/traces"
        assert httpx.post(url, content=request.SerializeToString(), headers=HEADERS).status_code == 200
        [arrived] = backend.wait()
    body = gzip.decompress(backend.requests[0].body)
    assert not [text for text in (*SECRETS, "hush") if text.encode() in body]
    assert arrived.resource == {"process.command_line": "run ****"}
    assert b"key ****" in body
    assert arrived.links == [link]


def test_ordinary_text_passes_the_fence_unchanged(backend: Receiver, tmp_path: Path) -> None:
    """Words, numbers and addresses that only resemble secrets stay as they are."""
    text = "ask-me-anything about task-sk-1, https://docs.example/a:b@c, Basic information, token_count 12"
    attributes: dict[str, Any] = {"input.value": text, "llm.token_count.prompt": 12, "list": ["a", "b"]}
    made = span(**attributes)
    with Collector("stateless", backend.endpoint, tmp_path) as collector:
        collector.send(made)
        [arrived] = backend.wait()
    assert arrived.attributes == made.attributes


def test_spans_fan_out_to_two_backends(backend: Receiver, tmp_path: Path) -> None:
    """With the second exporter named, both backends get every span, each with its own authorization."""
    with Receiver() as second:
        env = {
            "COLLECTOR_EXPORTERS": BOTH,
            "COLLECTOR_AUTHORIZATION": "Basic one",
            "COLLECTOR_SECOND_ENDPOINT": second.endpoint,
            "COLLECTOR_SECOND_AUTHORIZATION": "Basic two",
        }
        with Collector("stateless", backend.endpoint, tmp_path, env) as collector:
            collector.send(span("one"), span("two"))
            names = [sorted(s.name for s in receiver.wait(2)) for receiver in (backend, second)]
        assert names == [["one", "two"]] * 2
        assert backend.requests[0].headers["authorization"] == "Basic one"
        assert second.requests[0].headers["authorization"] == "Basic two"


def test_sampling_keeps_whole_traces(backend: Receiver, tmp_path: Path) -> None:
    """At 20 % about a fifth of the traces passes, each with all of its spans, whatever request they came in."""
    traces = [secrets.token_hex(16) for _ in range(500)]
    with Collector("stateless", backend.endpoint, tmp_path, {"COLLECTOR_SAMPLING_PERCENTAGE": "20"}) as collector:
        for part in range(3):
            assert collector.send(*(span(f"part {part}", trace) for trace in traces)) == 200
    kept = [s.trace_id for s in backend.spans]
    assert {kept.count(trace) for trace in kept} == {3}
    assert 60 <= len(set(kept)) <= 140


def test_a_langfuse_servers_own_spans_are_dropped(backend: Receiver, tmp_path: Path) -> None:
    """Spans of a Langfuse server do not go back into Langfuse; those of a service that is called alike do."""
    resources = [
        {"service.name": "web", "telemetry.sdk.language": "nodejs"},
        {"service.name": "worker", "telemetry.sdk.language": "nodejs"},
        {"service.name": "langfuse-web"},
        {"service.name": "web", "telemetry.sdk.language": "python"},
        {},
    ]
    with Collector("stateless", backend.endpoint, tmp_path) as collector:
        collector.send(*(dataclasses.replace(span(), resource=resource) for resource in resources))
        assert [s.resource for s in backend.wait(2)] == resources[3:]


def test_large_requests_and_values_are_taken(backend: Receiver, tmp_path: Path) -> None:
    """A request of 30 MB is taken, and a value that Langfuse would halve is cut at 1 MB."""
    with Collector("stateless", backend.endpoint, tmp_path) as collector:
        assert collector.send(*(span(**{"output.value": "x" * 1_500_000}) for _ in range(20))) == 200
        assert {len(s.attributes["output.value"]) for s in backend.wait(20)} == {1_000_000}


def test_traces_can_be_watched_on_their_way(backend: Receiver, tmp_path: Path) -> None:
    """The debug exporter prints spans; health, metrics and zpages answer."""
    with Collector("stateless", backend.endpoint, tmp_path, {"COLLECTOR_EXPORTERS": WATCHED}) as collector:
        collector.send(span("look here"))
        processes.until(lambda: "look here" in collector.process.log)
        assert httpx.get(f"http://127.0.0.1:{collector.zpages}/debug/pipelinez").is_success
        processes.until(lambda: collector.metric("otelcol_receiver_accepted_spans") == 1)


def test_tail_sampling_keeps_failed_traces_whole(backend: Receiver, tmp_path: Path) -> None:
    """Of 40 traces the failed ones come out with all their spans, although the others are all dropped."""
    failed, fine = ([secrets.token_hex(16) for _ in range(20)] for _ in range(2))
    env = {"COLLECTOR_TAIL_PERCENTAGE": "0"}
    patient = "processors::tail_sampling: {decision_wait: 5s}"  # the second request may be late
    with Collector("tail", backend.endpoint, tmp_path, env, patient) as collector:
        collector.send(*(span("root", trace) for trace in failed + fine))
        collector.send(*(span("step", trace, status="ERROR") for trace in failed))
        arrived = backend.wait(40)
        late = span("feedback", failed[0])
        collector.send(late)
        arrived = backend.wait(lambda spans: late.span_id in {s.span_id for s in spans})
    assert {s.trace_id for s in arrived} == set(failed)
