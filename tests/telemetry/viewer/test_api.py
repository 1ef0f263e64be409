"""The viewer's API: sent to by real bodies, read by the unchanged Langfuse SDK."""

import gzip
import json
from typing import Any

import httpx
import pytest
from langfuse import Langfuse
from langfuse.api import CreateScoreRequest, ScoreDataType
from langfuse.api.core.api_error import ApiError

from tests.telemetry.viewer.conftest import TRACES, Recorder, Viewer

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def one(**span: Any) -> dict[str, Any]:
    """A JSON request of one span."""
    whole = {"traceId": TRACE, "spanId": SPAN, "name": "n", "startTimeUnixNano": "5", "endTimeUnixNano": "9"}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [whole | span]}]}]}


def attribute(name: str, **value: Any) -> dict[str, Any]:
    """An attribute as OTLP/JSON has it."""
    return {"key": name, "value": value}


def test_the_sdk_reads_back_what_was_sent(viewer: Viewer, recorder: Recorder, langfuse: Langfuse) -> None:
    """Observations come back through the SDK with the fields that Langfuse makes of a span."""
    common = {"session.id": "t-9", "user.id": "ada", "langfuse.trace.name": "chat", "langfuse.trace.tags": ["a", "b"]}
    with (
        recorder.tracer.start_as_current_span("turn", attributes=common),
        recorder.tracer.start_as_current_span("model", attributes=common) as model,
    ):
        model.set_attributes(
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "demo",
                "llm.token_count.prompt": 10,
                "llm.token_count.completion": 4,
                "llm.token_count.prompt_details.cache_read": 3,
                "llm.invocation_parameters": '{"temperature": 0}',
                "input.value": "hidden",
                "langfuse.observation.input": '[{"role": "user", "content": "hi"}]',
                "output.value": "hello",
                "langfuse.observation.completion_start_time": "2100-01-01T00:00:00Z",
                "langfuse.observation.metadata.langgraph_node": "agent",
                "langfuse.trace.metadata.agent": "research",
            }
        )
    trace_id = viewer.send(recorder.spans)
    groups = "core,basic,time,io,metadata,model,usage,metrics,trace_context"
    found, root = langfuse.api.observations.get_many(trace_id=trace_id, fields=groups).data
    assert (root.name, root.type, root.is_root_observation) == ("turn", "SPAN", True)
    assert (found.name, found.type, found.level) == ("model", "GENERATION", "DEFAULT")
    assert (found.trace_id, found.parent_observation_id) == (trace_id, root.id)
    assert (found.session_id, found.user_id, found.tags, found.trace_name) == ("t-9", "ada", ["a", "b"], "chat")
    assert (found.model, found.model_parameters) == ("demo", {"temperature": 0})
    assert found.usage_details == {"input": 7, "output": 4, "input_cached_tokens": 3}
    assert json.loads(str(found.input)) == [{"role": "user", "content": "hi"}]
    assert found.output == "hello"
    assert found.metadata
    assert (found.metadata["agent"], found.metadata["langgraph_node"]) == ("research", "agent")
    assert found.environment == "test"
    assert found.completion_start_time
    assert found.completion_start_time.year == 2100


def test_fields_come_by_groups(viewer: Viewer, langfuse: Langfuse) -> None:
    """As with Langfuse, input and output come only where the `io` group is asked for."""
    viewer.client.post(TRACES, json=one(attributes=[attribute("input.value", stringValue="in")]))
    [plain] = langfuse.api.observations.get_many(trace_id=TRACE).data
    [full] = langfuse.api.observations.get_many(trace_id=TRACE, fields="io").data
    assert (plain.input, full.input) == (None, "in")
    assert (plain.name, full.name) == ("n", None)


def test_reading_by_pages(viewer: Viewer, langfuse: Langfuse) -> None:
    """The cursor leads through all observations, each once, newest first."""
    spans = [
        {"traceId": TRACE, "spanId": f"{number:016x}", "name": str(number), "startTimeUnixNano": str(number)}
        for number in range(1, 6)
    ]
    viewer.client.post(TRACES, json={"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    names, cursor = [], None
    while True:
        page = langfuse.api.observations.get_many(trace_id=TRACE, limit=2, cursor=cursor)
        names += [each.name for each in page.data]
        if not (cursor := page.meta.cursor):
            break
    assert names == ["5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("attributes", "status", "expected"),
    [
        ({}, 0, ("SPAN", "DEFAULT", None)),
        ({}, 2, ("SPAN", "ERROR", "broke")),
        ({"langfuse.observation.level": "WARNING"}, 2, ("SPAN", "WARNING", "broke")),
        ({"langfuse.observation.status_message": "said"}, 2, ("SPAN", "ERROR", "said")),
        ({"openinference.span.kind": "TOOL"}, 0, ("TOOL", "DEFAULT", None)),
        ({"openinference.span.kind": "TOOL", "langfuse.observation.type": "agent"}, 0, ("AGENT", "DEFAULT", None)),
        ({"openinference.span.kind": "NEW"}, 0, ("SPAN", "DEFAULT", None)),
        ({"gen_ai.operation.name": "chat"}, 0, ("GENERATION", "DEFAULT", None)),
        ({"model": "m"}, 0, ("GENERATION", "DEFAULT", None)),
    ],
)
def test_types_and_levels(
    viewer: Viewer, attributes: dict[str, str], status: int, expected: tuple[str, str, str | None]
) -> None:
    """Type, level and message follow the order in which Langfuse looks for them."""
    named = [attribute(name, stringValue=value) for name, value in attributes.items()]
    viewer.client.post(
        TRACES, json=one(attributes=named, status={"code": status, "message": "broke" if status else ""})
    )
    [record] = viewer.client.get("/api/public/v2/observations", params={"traceId": TRACE}).json()["data"]
    assert (record["type"], record["level"], record["statusMessage"]) == expected


def test_a_span_sent_twice_is_replaced(viewer: Viewer) -> None:
    """The second record with the same ids takes the place of the first."""
    for name in ("first", "second"):
        assert viewer.client.post(TRACES, json=one(name=name)).json() == {}
    records = viewer.client.get("/api/public/v2/observations", params={"traceId": TRACE}).json()["data"]
    assert [record["name"] for record in records] == ["second"]


def test_scores_through_the_queue_of_the_sdk(langfuse: Langfuse) -> None:
    """`create_score` with a fixed id upserts, and the score reads back with its details."""
    for value, comment in ((1, "good"), (0, "on second thought")):
        langfuse.create_score(
            trace_id=TRACE, score_id="s-1", name="thumb", value=value, data_type="BOOLEAN", comment=comment
        )
        langfuse.flush()
    [score] = langfuse.api.scores.get_many(trace_id=TRACE, fields="details,subject").data
    assert (score.id, score.name, score.value, score.comment) == ("s-1", "thumb", False, "on second thought")
    assert score.data_type == "BOOLEAN"
    assert score.subject
    assert (score.subject.kind, score.subject.id) == ("trace", TRACE)


def test_scores_straight_through_the_api(langfuse: Langfuse) -> None:
    """All kinds of scores go in and come back as the SDK's own models; a deleted one is gone."""
    langfuse.api.scores.create(
        request=[
            CreateScoreRequest(id="n", trace_id=TRACE, name="n", value=0.5),
            CreateScoreRequest(id="o", trace_id=TRACE, observation_id=SPAN, name="o", value=3),
            CreateScoreRequest(id="c", trace_id=TRACE, name="c", value="fine"),
            CreateScoreRequest(id="t", trace_id=TRACE, name="t", value="long", data_type=ScoreDataType.TEXT),
        ]
    )
    found = langfuse.api.scores.get_many(trace_id=TRACE, fields="subject").data
    kinds = {score.id: (score.data_type, score.value, score.subject and score.subject.kind) for score in found}
    assert kinds == {
        "n": ("NUMERIC", 0.5, "trace"),
        "o": ("NUMERIC", 3.0, "observation"),
        "c": ("CATEGORICAL", "fine", "trace"),
        "t": ("TEXT", "long", "trace"),
    }
    langfuse.api.scores.delete("n")
    assert {score.id for score in langfuse.api.scores.get_many(trace_id=TRACE).data} == {"o", "c", "t"}
    with pytest.raises(ApiError):
        langfuse.api.scores.delete("n")


@pytest.mark.parametrize(
    ("score", "says"),
    [
        ({}, "name"),
        ({"name": "n", "value": 1}, "traceId or a sessionId"),
        ({"name": "n", "value": "x", "traceId": TRACE, "dataType": "NUMERIC"}, "needs a number"),
        ({"name": "n", "value": 1, "traceId": TRACE, "dataType": "TEXT"}, "needs a text"),
        ({"name": "n", "value": 2, "traceId": TRACE, "dataType": "BOOLEAN"}, "0 or 1"),
        ({"name": "n", "value": 1, "sessionId": "s", "observationId": SPAN}, "traceId as well"),
        ({"name": "n", "value": 1, "traceId": TRACE, "environment": "langfuse-x"}, "environment"),
        ({"name": "n", "value": 1, "traceId": TRACE, "timestamp": "0001-01-01T00:00:00Z"}, "timestamp"),
        ({"name": "n", "value": 1, "traceId": TRACE, "timestamp": "2026-01-01T00:00:00"}, "timestamp"),
        (7, "dictionary"),
    ],
)
def test_bad_scores_are_refused_with_a_sentence(viewer: Viewer, score: Any, says: str) -> None:
    """Alone a bad score is a 400; in a list it is counted, named, and keeps no good one out."""
    alone = viewer.client.post("/api/public/scores", json=score)
    assert alone.status_code == 400
    assert says in alone.json()["message"]
    good = {"id": "good", "name": "n", "value": 1, "traceId": TRACE}
    listed = viewer.client.post("/api/public/scores", json=[score, good])
    assert listed.status_code == 207
    assert (listed.json()["accepted"], listed.json()["rejected"]) == (1, 1)
    assert says in listed.json()["errors"][0]["message"]
    [kept] = viewer.client.get("/api/public/v3/scores", params={"traceId": TRACE}).json()["data"]
    assert kept["id"] == "good"


def test_a_single_score_is_accepted(viewer: Viewer) -> None:
    """One object instead of a list, as older servers take it, is kept and answered with its id."""
    answer = viewer.client.post("/api/public/scores", json={"id": "x", "name": "n", "value": 1, "traceId": TRACE})
    assert (answer.status_code, answer.json()) == (200, {"id": "x"})


@pytest.mark.parametrize("auth", [None, ("pk-lf-local", "wrong"), ("", ""), ("ü", "ü")])
def test_without_the_keys_nothing_goes_in_or_out(viewer: Viewer, auth: tuple[str, str] | None) -> None:
    """Every API route but the health check asks for both keys."""
    routes = [
        ("POST", TRACES),
        ("POST", "/api/public/scores"),
        ("DELETE", "/api/public/scores/x"),
        ("GET", "/api/public/projects"),
        ("GET", f"/api/public/v2/observations?traceId={TRACE}"),
        ("GET", f"/api/public/v3/scores?traceId={TRACE}"),
    ]
    for method, path in routes:
        answer = httpx.request(method, viewer.url + path, auth=auth, trust_env=False)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
    assert httpx.get(viewer.url + "/api/public/health", trust_env=False).json()["status"] == "OK"


@pytest.mark.parametrize(
    ("content", "headers", "says"),
    [
        (b"\xff\xff", PROTOBUF, "ExportTraceServiceRequest"),
        (json.dumps(one(traceId="0" * 32)).encode(), JSON, "trace id"),
        (json.dumps(one(attributes={})).encode(), JSON, "attributes"),
        (b"{}", {"content-type": "text/plain"}, "content type"),
        (b"{}", {}, "content type"),
        (b"{}", JSON | {"content-encoding": "gzip"}, "gzip"),
    ],
)
def test_malformed_traces_are_refused_with_a_sentence(
    viewer: Viewer, content: bytes, headers: dict[str, str], says: str
) -> None:
    """A malformed body is a 400 that says what is wrong."""
    answer = viewer.client.post(TRACES, content=content, headers=headers)
    assert answer.status_code == 400
    assert says in answer.json()["message"]


def test_a_malformed_span_takes_the_others_along(viewer: Viewer) -> None:
    """All spans of a request are kept, or none."""
    body = one()
    body["resourceSpans"] += one(spanId="ab")["resourceSpans"]
    assert viewer.client.post(TRACES, json=body).status_code == 400
    assert viewer.client.get("/api/public/v2/observations", params={"traceId": TRACE}).json()["data"] == []


def test_a_gzip_bomb_is_refused(viewer: Viewer) -> None:
    """A body that unpacks to more than the limit is a 413, and the viewer lives on."""
    bomb = gzip.compress(bytes(256 * 1024 * 1024), compresslevel=1)
    answer = viewer.client.post(TRACES, content=bomb, headers=PROTOBUF | {"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert viewer.client.get("/api/public/health").status_code == 200


def test_a_body_without_end_is_refused(viewer: Viewer) -> None:
    """A body that is streamed without a declared length stops being read at the limit."""

    def endless() -> Any:
        while True:
            yield bytes(1024 * 1024)

    try:
        status = viewer.client.post(TRACES, content=endless(), headers=PROTOBUF).status_code
    except (httpx.WriteError, httpx.ReadError):
        status = 413
    assert status == 413
    assert viewer.client.post("/api/public/scores", content=bytes(2 * 1024 * 1024)).status_code == 413


@pytest.mark.parametrize(
    "query",
    [
        "/api/public/v2/observations",
        f"/api/public/v2/observations?traceId={TRACE}&fields=everything",
        f"/api/public/v2/observations?traceId={TRACE}&limit=0",
        f"/api/public/v2/observations?traceId={TRACE}&cursor=x",
        "/api/public/v3/scores",
        f"/api/public/v3/scores?traceId={TRACE}&fields=everything",
        "/project/local/traces?before=99999999999999999999",
    ],
)
def test_bad_questions_are_answered_with_a_sentence(viewer: Viewer, query: str) -> None:
    """Parameters that cannot be are a 400 that says which."""
    answer = viewer.client.get(query)
    assert answer.status_code == 400
    assert answer.json()["message"].endswith(".")


def test_odd_values_do_no_harm(viewer: Viewer) -> None:
    """Numbers that are none, bytes, deep JSON and absurd usage are read back without an error."""
    odd = [
        attribute("nan", doubleValue="NaN"),
        attribute("bytes", bytesValue="/w=="),
        attribute("empty"),
        attribute("langfuse.observation.metadata.deep", stringValue="[" * 150 + "]" * 150),
        attribute("langfuse.observation.usage_details", stringValue='{"input": 1e308, "output": "x", "total": 5}'),
        attribute("langfuse.observation.completion_start_time", stringValue="yesterday"),
        attribute("llm.input_messages.99999999999999.message.role", stringValue="user"),
        attribute("langfuse.trace.tags", intValue="7"),
        attribute("llm.model_name", arrayValue={"values": []}),
    ]
    assert viewer.client.post(TRACES, json=one(attributes=odd)).status_code == 200
    groups = {"fields": "basic,time,io,metadata,model,usage,metrics,trace_context,prompt"}
    answer = viewer.client.get("/api/public/v2/observations", params={"traceId": TRACE} | groups)
    assert answer.json()["data"][0]["usageDetails"] == {"total": 5}
    assert viewer.client.get(viewer.page(TRACE)).status_code == 200
