"""Settings: where spans go, and what is refused at start."""

from base64 import b64decode

import pytest

from telemetry.settings import Settings, SettingsError, load_settings
from tests.conftest import DUMMY


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in DUMMY:
        monkeypatch.delenv(name)
    return monkeypatch


def settings(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_nothing_set_is_off(bare: pytest.MonkeyPatch) -> None:
    """Without a backend nothing is recorded."""
    assert not settings(bare).active


def test_langfuse_keys_are_enough(bare: pytest.MonkeyPatch) -> None:
    """Keys alone mean Langfuse's cloud, with Basic auth and the ingestion version."""
    found = settings(bare, LANGFUSE_PUBLIC_KEY="pk", LANGFUSE_SECRET_KEY="sk")

    assert found.endpoint == "https://cloud.langfuse.com/api/public/otel/v1/traces"
    assert b64decode(found.headers["authorization"].removeprefix("Basic ")) == b"pk:sk"
    assert found.headers["x-langfuse-ingestion-version"] == "4"


def test_host_names(bare: pytest.MonkeyPatch) -> None:
    """LANGFUSE_BASE_URL stands above LANGFUSE_HOST; an empty one is unset; a trailing slash does no harm."""
    keys = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}

    assert settings(bare, LANGFUSE_HOST="http://a:1/", **keys).langfuse_url == "http://a:1"
    assert settings(bare, LANGFUSE_BASE_URL="").langfuse_url == "http://a:1"
    assert settings(bare, LANGFUSE_BASE_URL="http://b:2").langfuse_url == "http://b:2"


def test_otel_names_win_and_keys_stay_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit OTLP endpoint gets the spans, with its own headers, and never Langfuse's keys."""
    found = settings(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318/",
        OTEL_EXPORTER_OTLP_HEADERS="x-token=abc,x-team=blue",
    )

    assert found.endpoint == "http://collector:4318/v1/traces"
    assert found.headers == {"x-token": "abc", "x-team": "blue"}


def test_traces_endpoint_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is the full address; Langfuse's path gets Langfuse's version header."""
    address = "https://eu.example/api/public/otel/v1/traces"
    found = settings(monkeypatch, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=address)

    assert found.endpoint == address
    assert found.headers == {"x-langfuse-ingestion-version": "4"}


@pytest.mark.parametrize(
    "environ", [{"LANGFUSE_TRACING": "false"}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}]
)
def test_switches_turn_it_off(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    """Each of the switches turns tracing off."""
    assert not settings(monkeypatch, **environ).active


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"},
    ],
)
def test_another_protocol_is_no_obstacle_where_none_is_used(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """`opentelemetry-instrument` presets grpc: Langfuse, a console and tracing that is off know of no protocol."""
    assert settings(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", **environ)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LANGFUSE_SECRET_KEY": ""}, "set both or neither"),
        ({"LANGFUSE_PUBLIC_KEY": "", "LANGFUSE_SECRET_KEY": ""}, "LANGFUSE_HOST is set without keys"),
        ({"LANGFUSE_PUBLIC_KEY": "sk-lf-1"}, "LANGFUSE_PUBLIC_KEY is a secret key"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization: Basic cGs6c2s="}, "OTEL_EXPORTER_OTLP_HEADERS is not a list"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "x-key=1,two"}, "write name=value"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": 'x-key="1"'}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS is not a list"),
        ({"LANGFUSE_HOST": "langfuse.example"}, "LANGFUSE_HOST is not an address"),
        ({"LANGFUSE_HOST": "https://pk:sk@langfuse.example"}, "LANGFUSE_HOST contains a password"),
        ({"LANGFUSE_SAMPLING_RATE": "150"}, "LANGFUSE_SAMPLING_RATE"),
        ({"LANGFUSE_ENVIRONMENT": "My Team!"}, "LANGFUSE_ENVIRONMENT would become 'default'"),
        ({"LANGFUSE_TRACING": "perhaps"}, "LANGFUSE_TRACING"),
        ({"OTEL_SDK_DISABLED": "1"}, "OTEL_SDK_DISABLED"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc: set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to http/protobuf",
        ),
        ({"TELEMETRY_LANGCHAIN": "langsmith"}, "TELEMETRY_LANGCHAIN input should be 'openinference' or 'recorder'"),
        ({"LANGFUSE_HOST": "http://lang fuse"}, "LANGFUSE_HOST is not an address"),
        ({"LANGFUSE_HOST": "http://langfuse:99999"}, "LANGFUSE_HOST port out of range"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a/?key=hush"}, "OTEL_EXPORTER_OTLP_ENDPOINT contains a query"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "Bearer hush"}, "OTEL_EXPORTER_OTLP_HEADERS is not a list of headers"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=b,api key=hush"}, "OTEL_EXPORTER_OTLP_HEADERS is not a list of headers"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=hush%0Ax"}, "OTEL_EXPORTER_OTLP_HEADERS is not a list of headers"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "inf"}, "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "soon"}, "OTEL_BSP_SCHEDULE_DELAY"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=My Team!"}, "OTEL_RESOURCE_ATTRIBUTES would become"),
        ({"OTEL_PROPAGATORS": "tracecontext, b3"}, "OTEL_PROPAGATORS names something that is not installed"),
        ({"OTEL_PYTHON_CONTEXT": "nobody"}, "OTEL_PYTHON_CONTEXT names"),
        ({"OTEL_PYTHON_TRACER_PROVIDER": "nobody"}, "OTEL_PYTHON_TRACER_PROVIDER names"),
        ({"OTEL_PYTHON_METER_PROVIDER": "nobody"}, "OTEL_PYTHON_METER_PROVIDER names"),
        ({"OTEL_PYTHON_LOGGER_PROVIDER": "nobody"}, "OTEL_PYTHON_LOGGER_PROVIDER names"),
        ({"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "nobody"}, "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS names"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"}, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is not a limit"),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "x"}, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT is not a limit"),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "-1"}, "OTEL_SPAN_EVENT_COUNT_LIMIT is not a limit"),
        ({"OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "1.5"}, "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT is not a limit"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "abc"}, "OTEL_BSP_MAX_QUEUE_SIZE is not a whole number above 0"),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE is not a whole number above 0"),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "soon"}, "OTEL_BSP_EXPORT_TIMEOUT is not a whole number above 0"),
        ({"OTEL_PYTHON_HTTPX_EXCLUDED_URLS": "/a,["}, "OTEL_PYTHON_HTTPX_EXCLUDED_URLS is not a list of regular"),
        ({"OTEL_PYTHON_EXCLUDED_URLS": "("}, "OTEL_PYTHON_EXCLUDED_URLS is not a list of regular"),
        ({"TRACE_URL": "https://traces.example/"}, "TRACE_URL is not a template"),
        ({"TELEMETRY_TRUSTED_HOST": "a"}, "did you mean TELEMETRY_TRUSTED_HOSTS?"),
        ({"LANGFUSE_SECRET_KY": "sk"}, "did you mean LANGFUSE_SECRET_KEY?"),
        ({"TELEMETRY_TURBO": "1"}, "TELEMETRY_TURBO is not a setting"),
        ({"TELEMETRY_GENAI_NAMES": "true"}, "TELEMETRY_SHAPE=genai or all"),
        ({"TELEMETRY_SHAPE": "otel"}, "TELEMETRY_SHAPE"),
    ],
)
def test_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], words: str) -> None:
    """What cannot be served is refused in one line that names the variable, and never shows a secret."""
    with pytest.raises(SettingsError) as refused:
        settings(monkeypatch, **environ)

    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "sk-lf-test" not in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ("authorization=Basic cGs6c2s=", {"authorization": "Basic cGs6c2s="}),
        ("a = b , c=d%20e,", {"a": "b", "c": "d e"}),
        ("X-Key=Bearer a.b-c_d~e", {"x-key": "Bearer a.b-c_d~e"}),
        ("n=%C3%BC", {"n": "ü"}),
    ],
)
def test_headers_that_are_sent(monkeypatch: pytest.MonkeyPatch, headers: str, sent: dict[str, str]) -> None:
    """Every header of a list that is taken is sent."""
    assert sent.items() <= settings(monkeypatch, OTEL_EXPORTER_OTLP_HEADERS=headers).headers.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_PROPAGATORS", "tracecontext, baggage"),
        ("OTEL_PROPAGATORS", "none"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "*"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process,host"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "unset"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4096"),
        ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "/health, .*/ping$"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", ""),
    ],
)
def test_what_the_sdk_reads_well_passes(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A variable of the SDK that it can be started with is not refused."""
    settings(monkeypatch, **{name: value})


def test_names_of_the_sdk_and_of_a_server_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of Langfuse's SDK and of a Langfuse server on the same machine are none of ours."""
    settings(monkeypatch, LANGFUSE_DEBUG="false", LANGFUSE_INIT_PROJECT_ID="p", LANGFUSE_S3_MEDIA_UPLOAD_BUCKET="b")


def test_no_secret_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Printing the settings shows neither the secret key nor a header."""
    shown = repr(settings(monkeypatch, OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer hush"))

    assert "sk-lf-test" not in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("environ", "shape"),
    [
        ({}, "langfuse"),
        ({"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}, "langfuse"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "langfuse"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://cloud.langfuse.com/api/public/otel"}, "langfuse"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://phoenix:6006", "TELEMETRY_SHAPE": "openinference"}, "openinference"),
        ({"TELEMETRY_SHAPE": "genai", "TELEMETRY_GENAI_NAMES": "true"}, "genai"),
        ({"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk", "TELEMETRY_SHAPE": "all"}, "all"),
    ],
)
def test_spans_are_langfuses_on_every_route(bare: pytest.MonkeyPatch, environ: dict[str, str], shape: str) -> None:
    """Behind a collector is Langfuse as well, unless somebody says otherwise."""
    assert settings(bare, **environ).shape == shape
