"""The viewer's API: sent to by real bodies, read by the unchanged Langfuse SDK."""

import gzip
import json
from typing import Any

import httpx
import pytest
from langfuse import Langfuse
from langfuse.api import CreateScoreRequest, ScoreDataType
from langfuse.api.core.api_error import ApiError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import Link

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
                "output.value": "hidden too",
                "langfuse.observation.output": "hello",
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
        f"/api/public/v2/observations?traceId={TRACE}&fields=everything",
        f"/api/public/v2/observations?traceId={TRACE}&limit=0",
        f"/api/public/v2/observations?traceId={TRACE}&cursor=x",
        f"/api/public/v3/scores?traceId={TRACE}&fields=everything",
        "/api/public/v2/observations?cursor=x",
        "/api/public/v2/observations?cursor=WyJ4Il0",
        "/api/public/v2/observations?filter=not%20json",
        "/api/public/v2/observations?filter=7",
        "/api/public/v2/observations?filter=[7]",
        '/api/public/v2/observations?filter=[{"column":"input","type":"string","operator":"=","value":"x"}]',
        '/api/public/v2/observations?filter=[{"column":"name","type":"number","operator":"=","value":1}]',
        '/api/public/v2/observations?filter=[{"column":"name","type":"string","operator":"like","value":"x"}]',
        '/api/public/v2/observations?filter=[{"column":"latency","type":"number","operator":"=","value":"much"}]',
        '/api/public/v2/observations?filter=[{"column":"startTime","type":"datetime","operator":">","value":"x"}]',
        '/api/public/v2/observations?filter=[{"column":"name","type":"stringOptions","operator":"any of","value":"x"}]',
        "/api/public/v2/observations?environment=",
        "/api/public/v2/observations?name=",
        "/api/public/v2/observations?name=a&name=b",
        "/api/public/v2/observations?toStartTime=soon",
        "/api/public/v2/observations?isRootObservation=perhaps",
        "/api/public/v2/observations?parseIoAsJson=true",
        "/api/public/v2/observations?page=2",
        "/api/public/v2/observations?trace_id=x",
        "/api/public/v3/scores?valueMin=1",
        "/api/public/v3/scores?valueMax=x&dataType=NUMERIC",
        "/api/public/v3/scores?value=1",
        "/api/public/v3/scores?value=x&dataType=NUMERIC",
        "/api/public/v3/scores?value=1&dataType=BOOLEAN",
        "/api/public/v3/scores?value=nan&dataType=NUMERIC",
        "/api/public/v3/scores?observationId=x",
        "/api/public/v3/scores?traceId=x&sessionId=y",
        "/api/public/v3/scores?authorUserId=x",
        "/api/public/v3/scores?name=",
        "/api/public/v3/scores?fromTimestamp=soon",
        "/api/public/v3/scores?limit=101",
        "/api/public/v3/scores?userId=x",
        "/api/public/v2/datasets/d?version=2020-01-01T00:00:00Z",
        "/api/public/v2/datasets?name=d",
        "/api/public/dataset-items/x?version=1",
        "/api/public/v2/prompts?fromUpdatedAt=2020-01-01T00:00:00Z",
        "/api/public/projects?page=1",
        "/api/public/media/x?page=1",
        "/project/local/traces?before=99999999999999999999",
        "/project/local/traces?sort=nothing",
        "/project/local/traces?sort=tokens&before=5-" + "a" * 32,
        "/project/local/traces?from=soon",
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


SPANS = "/api/public/v2/observations"
SCORES = "/api/public/v3/scores"


def spans_of(*spans: dict[str, Any]) -> dict[str, Any]:
    """A JSON request of these spans, whose ids follow from their places where they have none."""
    whole = [
        {"traceId": TRACE, "spanId": f"{at:016x}", "name": "n", "startTimeUnixNano": str(at), "endTimeUnixNano": "9"}
        | one
        for at, one in enumerate(spans, 1)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": whole}]}]}


def names(viewer: Viewer, **query: Any) -> list[str]:
    """The names of the observations that are found."""
    response = viewer.client.get(SPANS, params=query)
    assert response.status_code == 200, response.text
    return [record["name"] for record in response.json()["data"]]


@pytest.fixture
def listed(viewer: Viewer) -> Viewer:
    """A viewer with three spans that differ in everything that can be asked for."""
    kinds = [attribute("openinference.span.kind", stringValue="TOOL"), attribute("user.id", stringValue="ada")]
    model = [attribute("llm.model_name", stringValue="m"), attribute("llm.token_count.total", intValue="7")]
    place = [attribute("langfuse.environment", stringValue="prod"), attribute("langfuse.version", stringValue="2")]
    tags = attribute("langfuse.trace.tags", arrayValue={"values": [{"stringValue": "a"}, {"stringValue": "b'"}]})
    app_root = [attribute("langfuse.internal.is_app_root", boolValue=True)]
    body = spans_of(
        {"name": "root", "attributes": [attribute("session.id", stringValue="s"), *place, tags]},
        {"name": "tool", "parentSpanId": f"{1:016x}", "attributes": kinds, "status": {"code": 2}},
        {"name": "model", "parentSpanId": f"{7:016x}", "attributes": model + app_root, "traceId": "a" * 32},
    )
    assert viewer.client.post(TRACES, json=body).status_code == 200
    return viewer


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["model", "tool", "root"]),
        ({"limit": 2}, ["model", "tool"]),
        ({"name": "tool"}, ["tool"]),
        ({"userId": "ada"}, ["tool"]),
        ({"userId": "bob"}, []),
        ({"sessionId": "s"}, ["root"]),
        ({"type": "GENERATION"}, ["model"]),
        ({"level": "ERROR"}, ["tool"]),
        ({"traceId": TRACE}, ["tool", "root"]),
        ({"traceId": TRACE, "toStartTime": "1970-01-01T00:00:00Z"}, []),
        ({"traceId": TRACE, "fromStartTime": "2020-01-01T00:00:00Z"}, []),
        ({"toStartTime": "2020-01-01T00:00:00+02:00"}, ["model", "tool", "root"]),
        ({"parentObservationId": f"{1:016x}"}, ["tool"]),
        ({"parentObservationId": ""}, ["root"]),
        ({"isRootObservation": "true"}, ["model", "root"]),
        ({"isRootObservation": "false"}, ["tool"]),
        ({"environment": "prod"}, ["root"]),
        ({"environment": ["prod", "default"]}, ["model", "tool", "root"]),
        ({"version": "2"}, ["root"]),
        ({"expandMetadata": "x", "parseIoAsJson": "false"}, ["model", "tool", "root"]),
        ({"name": "tool", "level": "DEFAULT"}, []),
    ],
)
def test_observations_are_listed_by_every_parameter(listed: Viewer, query: dict[str, Any], expected: list[str]) -> None:
    """Without a trace's id as well, each parameter narrows the listing to what fits."""
    assert names(listed, **query) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("string", "name", "=", "tool"), ["tool"]),
        (("string", "id", "=", f"{1:016x}"), ["root"]),
        (("string", "name", "contains", "oo"), ["tool", "root"]),
        (("string", "name", "does not contain", "oo"), ["model"]),
        (("string", "name", "starts with", "r"), ["root"]),
        (("string", "name", "ends with", "l"), ["model", "tool"]),
        (("string", "name", "contains", "%"), []),
        (("stringOptions", "level", "any of", ["ERROR", "WARNING"]), ["tool"]),
        (("stringOptions", "sessionId", "none of", ["s"]), ["model", "tool"]),
        (("arrayOptions", "tags", "any of", ["x", "b'"]), ["root"]),
        (("arrayOptions", "traceTags", "all of", ["a", "b'"]), ["root"]),
        (("arrayOptions", "tags", "all of", ["a", "x"]), []),
        (("arrayOptions", "tags", "none of", ["a"]), ["model", "tool"]),
        (("number", "tokens", ">=", 7), ["model"]),
        (("boolean", "isRootObservation", "<>", True), ["tool"]),
        (("datetime", "startTime", ">", "1970-01-01T00:00:00Z"), ["model", "tool", "root"]),
        (("null", "sessionId", "is null", None), ["model", "tool"]),
        (("null", "totalCost", "is not null", None), []),
    ],
)
def test_observations_are_filtered(listed: Viewer, condition: tuple[Any, ...], expected: list[str]) -> None:
    """A condition of `filter` holds as it is written, alone and beside the other parameters."""
    condition_of = dict(zip(("type", "column", "operator", "value"), condition, strict=True))
    assert names(listed, filter=json.dumps([condition_of])) == expected
    assert names(listed, filter=json.dumps([condition_of]), traceId="b" * 32) == []


def test_a_page_is_not_moved_by_what_comes_between(viewer: Viewer) -> None:
    """What arrives between two pages repeats no row and hides none."""
    viewer.client.post(TRACES, json=spans_of(*({"name": str(number)} for number in range(1, 6))))
    first = viewer.client.get(SPANS, params={"limit": 2}).json()
    late = {"name": "new", "spanId": "f" * 16, "startTimeUnixNano": "100"}
    viewer.client.post(TRACES, json=spans_of(late))
    second = viewer.client.get(SPANS, params={"limit": 9, "cursor": first["meta"]["cursor"]}).json()
    assert [record["name"] for page in (first, second) for record in page["data"]] == ["5", "4", "3", "2", "1"]
    assert "cursor" not in second["meta"]


def test_scores_are_listed_by_every_parameter(viewer: Viewer) -> None:
    """Scores are found by what they are and what they judge, page by page, with commas as alternatives."""
    scores = [
        {"id": "a", "traceId": TRACE, "name": "stars", "value": 4, "timestamp": "2026-01-01T00:00:00Z"},
        {"id": "b", "traceId": TRACE, "observationId": SPAN, "name": "mood", "value": "good", "configId": "c"},
        {"id": "c", "sessionId": "s", "name": "ok", "value": 1, "dataType": "BOOLEAN", "environment": "prod"},
        {"id": "d", "datasetRunId": "r", "name": "stars", "value": 2, "source": "EVAL", "queueId": "q"},
    ]
    stamped = [{"timestamp": f"2026-01-0{at}T00:00:00Z", **score} for at, score in enumerate(scores, 1)]
    assert viewer.client.post("/api/public/scores", json=stamped).status_code == 202

    def found(**query: Any) -> str:
        response = viewer.client.get(SCORES, params=query)
        assert response.status_code == 200, response.text
        return "".join(record["id"] for record in response.json()["data"])

    assert found() == "dcba"
    first = viewer.client.get(SCORES, params={"limit": 2}).json()
    assert [record["id"] for record in first["data"]] == ["d", "c"]
    assert found(limit=2, cursor=first["meta"]["cursor"]) == "ba"
    assert found(name="stars") == "da"
    assert found(name="stars, mood") == "dba"
    assert found(id="a,c,x") == "ca"
    assert found(source="eval") == "d"
    assert found(dataType="numeric,BOOLEAN") == "dca"
    assert found(dataType="NUMERIC", valueMin=3) == "a"
    assert found(dataType="NUMERIC", value="2,9") == "d"
    assert found(dataType="BOOLEAN", value="true") == "c"
    assert found(dataType="CATEGORICAL", value="good") == "b"
    assert found(environment="prod") == "c"
    assert (found(configId="c"), found(queueId="q")) == ("b", "d")
    assert found(traceId=TRACE) == "ba"
    assert found(traceId=TRACE, observationId=SPAN) == "b"
    assert found(sessionId="s") == "c"
    assert found(experimentId="r") == "d"
    assert found(fromTimestamp="2026-01-03T00:00:00Z") == "dc"
    assert found(toTimestamp="2026-01-02T00:00:00Z") == "a"


def test_a_score_of_a_dataset_run_reads_back(langfuse: Langfuse) -> None:
    """A score that names nothing but the run of a dataset is kept, and the SDK reads what it is of."""
    langfuse.api.scores.create(request=[CreateScoreRequest(dataset_run_id="run", name="accuracy", value=0.5)])
    [score] = langfuse.api.scores.get_many(experiment_id="run", fields="subject").data
    assert score.subject
    assert (score.subject.kind, score.subject.id, score.value) == ("experiment", "run", 0.5)


def test_a_score_without_an_id_that_is_sent_twice_is_one(viewer: Viewer) -> None:
    """A request whose answer was lost may be sent again; another value, name or time is another score."""
    score = {"traceId": TRACE, "name": "stars", "value": 4}
    ids = [viewer.client.post("/api/public/scores", json=score).json()["id"] for _ in range(2)]
    assert ids[0] == ids[1]
    for other in ({"value": 5}, {"name": "n"}, {"comment": "x"}, {"timestamp": "2026-01-01T00:00:00Z"}):
        viewer.client.post("/api/public/scores", json=score | other)
    assert len(viewer.client.get(SCORES).json()["data"]) == 5


def test_scores_of_older_sdks_are_kept(viewer: Viewer) -> None:
    """SDK 3 and 4 send scores as events of a batch: each is answered by its id, the good ones are kept."""

    def event(number: int, kind: str, **body: Any) -> dict[str, Any]:
        return {"id": f"e{number}", "type": kind, "timestamp": "2026-01-01T00:00:00.000Z", "body": body}

    good = {"id": "s-1", "traceId": TRACE, "name": "thumb", "value": 1.0, "dataType": "BOOLEAN", "comment": None}
    batch = [event(1, "score-create", **good), event(2, "score-create", name="n"), event(3, "trace-create"), 7]
    response = viewer.client.post("/api/public/ingestion", json={"batch": batch, "metadata": {"sdk_name": "python"}})
    assert response.status_code == 207
    assert response.json()["successes"] == [{"id": "e1", "status": 201}]
    assert [(each["id"], each["status"]) for each in response.json()["errors"]] == [("e2", 400), ("e3", 400), ("", 400)]
    [kept] = viewer.client.get(SCORES).json()["data"]
    assert (kept["id"], kept["value"]) == ("s-1", True)
    for body in ({}, {"batch": 7}, []):
        assert viewer.client.post("/api/public/ingestion", json=body).status_code == 400


@pytest.mark.parametrize("path", ["/api/public/scores", "/api/public/ingestion"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_scores_come_as_json_alone(viewer: Viewer, path: str, kind: str) -> None:
    """What a page of another site can post without being asked whether it may is refused."""
    body = json.dumps({"traceId": TRACE, "name": "n", "value": 1})
    answer = viewer.client.post(path, content=body, headers={"content-type": kind})
    assert answer.status_code == 415
    assert viewer.client.get(SCORES).json()["data"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_write_nothing(viewer: Viewer, headers: dict[str, str]) -> None:
    """A browser says for which page it sends: only the viewer's own may write or delete."""
    score = {"id": "x", "traceId": TRACE, "name": "n", "value": 1}
    assert viewer.client.post("/api/public/scores", json=score, headers=headers).status_code == 403
    assert viewer.client.post(TRACES, json=one(), headers=headers).status_code == 403
    own = {"origin": viewer.url, "sec-fetch-site": "same-origin"}
    assert viewer.client.post("/api/public/scores", json=score, headers=own).status_code == 200
    assert viewer.client.delete("/api/public/scores/x", headers=headers).status_code == 403
    assert viewer.client.get(SCORES, headers=headers).status_code == 200


def test_costs_are_what_was_sent(viewer: Viewer, langfuse: Langfuse) -> None:
    """Costs come back by kind with their sum; where none was sent there is none, which is not the same as 0."""
    sent = [
        ({}, {}, None),
        (
            {"langfuse.observation.cost_details": '{"input": 0.1, "output": 0.2}'},
            {"input": 0.1, "output": 0.2, "total": pytest.approx(0.3)},
            0.3,
        ),
        ({"langfuse.observation.cost_details": '{"input": 1, "total": 4}'}, {"input": 1, "total": 4}, 4),
        ({"langfuse.observation.cost_details": '{"input": 0}'}, {"input": 0, "total": 0}, 0),
        ({"langfuse.observation.cost_details": '{"input": "much", "x": -1, "y": 1e300}'}, {}, None),
        ({"langfuse.observation.cost_details": "7"}, {}, None),
    ]
    spans = [{"attributes": [attribute(key, stringValue=value) for key, value in each.items()]} for each, _, _ in sent]
    spans.append({"attributes": [attribute("llm.cost.total", doubleValue=0.5)]})
    assert viewer.client.post(TRACES, json=spans_of(*spans)).status_code == 200
    found = langfuse.api.observations.get_many(trace_id=TRACE, fields="usage").data[::-1]
    expected = [*((details, total) for _, details, total in sent), ({"total": 0.5}, 0.5)]
    for each, (details, total) in zip(found, expected, strict=True):
        assert (each.cost_details, each.total_cost) == (details, pytest.approx(total) if total else total)


@pytest.mark.parametrize(
    ("model", "usage", "costs"),
    [
        ("gpt-4o", {"input": 1_000_000, "output": 100_000}, {"input": 2.5, "output": 1, "total": 3.5}),
        ("openai/GPT-4o-2024-11-20", {"input": 1_000_000}, {"input": 2.5, "output": 0, "total": 2.5}),
        ("gpt-4o-2024-05-13", {"input": 1_000_000}, {"input": 5, "output": 0, "total": 5}),
        ("gpt-35-turbo", {"input": 5, "output": 10, "total": 15}, {"input": 2.5e-6, "output": 15e-6, "total": 17.5e-6}),
        ("o4-mini", {"output_reasoning_tokens": 500_000}, {"input": 0, "output": 2.2, "total": 2.2}),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {"input": 100_000, "input_cached_tokens": 1_000_000, "input_cache_creation": 1_000_000},
            {"input": 4.785, "output": 0, "total": 4.785},
        ),
        ("claude-3-5-sonnet@20240620", {"output": 1_000_000}, {"input": 0, "output": 15, "total": 15}),
        ("gpt-4o", {"much": 1_000_000}, {}),
        ("gpt-4o", {}, {}),
        ("gpt-4o-2030-01-01", {"input": 1_000_000}, {}),
        ("my-gpt-4o", {"input": 1_000_000}, {}),
        ("demo", {"input": 1_000_000}, {}),
    ],
)
def test_a_known_model_has_its_list_price(
    viewer: Viewer, langfuse: Langfuse, model: str, usage: dict[str, int], costs: dict[str, float]
) -> None:
    """Where no cost was sent it is that of the tokens by the model's name and version; an unknown model has none."""
    said = {"langfuse.observation.model.name": model, "langfuse.observation.usage_details": json.dumps(usage)}
    sent = {"langfuse.observation.cost_details": '{"total": 7}'}
    spans = [
        {"attributes": [attribute(key, stringValue=text) for key, text in each.items()]} for each in (said, said | sent)
    ]
    assert viewer.client.post(TRACES, json=spans_of(*spans)).status_code == 200
    kept, found = langfuse.api.observations.get_many(trace_id=TRACE, fields="usage").data
    assert (found.cost_details, found.total_cost) == (pytest.approx(costs), pytest.approx(costs.get("total")))
    assert (kept.cost_details, kept.total_cost) == ({"total": 7}, 7)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"input": 1, "output": 2}, {"input": 1, "output": 2, "total": 3}),
        ({"input": 1, "output": 2, "total": 9}, {"input": 1, "output": 2, "total": 9}),
        (
            {"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 500},
            {"input": 100, "output": 200, "total": 500},
        ),
        ({"prompt_tokens": 10, "completion_tokens": 20}, {"prompt_tokens": 10, "completion_tokens": 20, "total": 30}),
        ({"input": "much"}, {}),
        ({}, {}),
        ([], {}),
    ],
)
def test_usage_has_langfuses_names_and_a_total(viewer: Viewer, sent: Any, expected: dict[str, int]) -> None:
    """OpenAI's three names, where all are there, become Langfuse's, and a total is added where none was sent."""
    usage = attribute("langfuse.observation.usage_details", stringValue=json.dumps(sent))
    viewer.client.post(TRACES, json=one(attributes=[usage]))
    [found] = viewer.client.get(SPANS, params={"fields": "usage"}).json()["data"]
    assert found["usageDetails"] == expected


@pytest.mark.parametrize(
    "keys",
    [
        (
            "prompt",
            "completion",
            "prompt_details.cache_read",
            "prompt_details.cache_write",
            "completion_details.reasoning",
        ),
        (
            "input_tokens",
            "output_tokens",
            "cache_read.input_tokens",
            "cache_creation.input_tokens",
            "reasoning.output_tokens",
        ),
    ],
)
def test_each_kind_of_tokens_is_counted_and_paid_once(
    viewer: Viewer, langfuse: Langfuse, keys: tuple[str, ...]
) -> None:
    """What was read from or written to a cache is no input, and what a model thought with no output."""
    prefix = "llm.token_count." if keys[0] == "prompt" else "gen_ai.usage."
    counts = [
        attribute(prefix + key, intValue=str(count)) for key, count in zip(keys, (100, 50, 20, 30, 10), strict=True)
    ]
    model = attribute("gen_ai.request.model", stringValue="claude-opus-4-8")
    assert viewer.client.post(TRACES, json=one(attributes=[model, *counts])).status_code == 200
    [found] = langfuse.api.observations.get_many(trace_id=TRACE, fields="usage").data
    details = {"input_cached_tokens": 20, "input_cache_creation": 30, "output_reasoning_tokens": 10}
    assert found.usage_details == {"input": 50, "output": 40, **details}
    assert found.total_cost == pytest.approx((50 * 5 + 20 * 0.5 + 30 * 6.25 + 50 * 25) / 1e6)


def test_model_parameters_are_plain_values(viewer: Viewer) -> None:
    """Lists and objects among a model's parameters are JSON in a string, the rest is as it was sent."""
    sent = {"stop": ["a", "b"], "temperature": 0.5, "stream": True, "format": {"type": "json"}, "n": None}
    viewer.client.post(
        TRACES, json=one(attributes=[attribute("llm.invocation_parameters", stringValue=json.dumps(sent))])
    )
    [found] = viewer.client.get(SPANS, params={"fields": "model"}).json()["data"]
    assert found["modelParameters"] == sent | {"stop": '["a","b"]', "format": '{"type":"json"}'}


def test_a_trace_that_one_span_makes_public_is_public(viewer: Viewer, langfuse: Langfuse) -> None:
    """`set_current_trace_as_public` on any span holds for the whole trace, and for no other."""
    public = [attribute("langfuse.trace.public", boolValue=True)]
    other = {"traceId": "a" * 32}
    viewer.client.post(TRACES, json=spans_of({"name": "root"}, {"name": "inner", "attributes": public}, other))
    assert [each.public for each in langfuse.api.observations.get_many(trace_id=TRACE).data] == [True, True]
    assert [each.public for each in langfuse.api.observations.get_many(trace_id="a" * 32).data] == [False]


def test_prompts_are_linked(viewer: Viewer, langfuse: Langfuse) -> None:
    """The name and version of the prompt that a generation was made with come back."""
    prompt = [
        attribute("langfuse.observation.prompt.name", stringValue="greeting"),
        attribute("langfuse.observation.prompt.version", intValue="3"),
    ]
    viewer.client.post(TRACES, json=one(attributes=prompt))
    [found] = langfuse.api.observations.get_many(trace_id=TRACE, fields="prompt").data
    assert (found.prompt_name, found.prompt_version) == ("greeting", 3)
    assert found.prompt_id


def nested(depth: int) -> dict[str, Any]:
    """A value of lists in lists."""
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def test_a_small_request_of_very_many_parts_is_refused(viewer: Viewer) -> None:
    """What unpacks to too many spans, events, links, values or levels is refused at once, and nothing of it kept."""
    ids = {"traceId": bytes.fromhex(TRACE), "spanId": bytes.fromhex(SPAN)}
    for part in ("events", "links", "attributes"):
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=ids["traceId"], span_id=ids["spanId"])
        for _ in range(300_000):
            getattr(span, part).add()
        assert _post(viewer, request) == 413, part
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(121_212):
        scope.spans.add(trace_id=ids["traceId"], span_id=ids["spanId"], name="a")
    assert _post(viewer, request) == 413
    deep = [{"key": "deep", "value": nested(200)}]
    assert viewer.client.post(TRACES, json=one(attributes=deep)).status_code == 400
    assert viewer.client.get(SPANS).json()["data"] == []


def _post(viewer: Viewer, request: ExportTraceServiceRequest) -> int:
    body = gzip.compress(request.SerializeToString(), compresslevel=1)
    return viewer.client.post(TRACES, content=body, headers=PROTOBUF | {"content-encoding": "gzip"}).status_code


def test_what_was_downloaded_can_be_sent_again(viewer: Viewer, recorder: Recorder) -> None:
    """A trace's OTLP/JSON is a request that leaves the same observations behind."""
    with recorder.tracer.start_as_current_span("root", attributes={"list": ["a", "b"], "n": 1.5}) as root:
        root.add_event("e", {"k": True})
        recorder.tracer.start_span("leaf", links=[Link(root.get_span_context(), {"why": "x"})]).end()
    trace_id = viewer.send(recorder.spans)
    path = f"/project/local/traces/{trace_id}.json"
    first = viewer.client.get(path)
    assert first.headers["content-disposition"] == f'attachment; filename="{trace_id}.json"'
    assert viewer.client.post(TRACES, content=first.content, headers=JSON).status_code == 200
    assert viewer.client.get(path).json() == first.json()
    assert viewer.client.get(f"/project/local/traces/{'0' * 32}.json").status_code == 404
