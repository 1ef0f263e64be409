"""The settings of tracing, read from the environment once and validated before anything starts."""

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from opentelemetry.sdk.resources import OTELResourceDetector
from opentelemetry.util.re import parse_env_headers
from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from telemetry.export.redact.patterns import compiled
from telemetry.settings.refusals import SettingsError, refuse_nonsense, refuse_unknown_names, sentence

LANGFUSE_CLOUD = "https://cloud.langfuse.com"
LANGFUSE_TRACES = "/api/public/otel/v1/traces"
_LANGFUSE_OTLP = LANGFUSE_TRACES.removesuffix("/v1/traces")
# Langfuse 4 answers without this header too, but some deployments then take minutes to show a span.
LANGFUSE_VERSION_HEADER = {"x-langfuse-ingestion-version": "4"}

_UNCHANGED = ("otlp_traces_endpoint", "otlp_metrics_endpoint", "otlp_logs_endpoint")
_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9-_]{1,40}")
_HEADER = re.compile(r"[!#-'*+.0-9A-Z^-z|~-]+[ \t]*=[ !#-+\--:<-\[\]-~]*")
_NO_ENVIRONMENT = "would become 'default' in Langfuse: use a-z, 0-9, - and _, at most 40, not beginning with 'langfuse'"

Budget = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Sampler = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]


class Settings(BaseSettings):
    """The tracing settings of one process; its repr shows no secret.

    The standard `OTEL_*` names take precedence over anything derived from `LANGFUSE_*`. An empty variable counts as
    unset.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    sdk_disabled: Literal["true", "false"] = Field(
        default="false", alias="OTEL_SDK_DISABLED", description="true turns tracing off"
    )
    tracing: bool = Field(default=True, alias="LANGFUSE_TRACING", description="false turns tracing off")
    exporter: Literal["otlp", "console", "none"] = Field(
        default="otlp", alias="OTEL_TRACES_EXPORTER", description="where finished spans go: otlp, console or none"
    )
    protocol: str = Field(
        default="http/protobuf",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        description="wire format of the OTEL_* endpoint; only http/protobuf is supported",
    )
    otlp_traces_endpoint: str | None = Field(
        default=None, alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", description="full address that spans are sent to"
    )
    otlp_endpoint: str | None = Field(
        default=None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="base address of any OTLP/HTTP backend or collector; /v1/traces is added",
    )
    otlp_headers: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
        description="headers of every export, as name=value,name=value",
    )
    compression: Literal["gzip", "none"] = Field(
        default="gzip",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"),
        description="gzip or none",
    )
    timeout: float = Field(
        default=10,
        gt=0,
        le=3600,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        description="seconds that a request to the backend may take",
    )
    certificate: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        description="file of the certificate authorities that the backend's certificate is verified with",
    )
    client_certificate: str | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
        ),
        description="file of the client certificate, if the backend asks for one",
    )
    client_key: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        description="file of the client certificate's key",
    )
    schedule_delay_ms: float = Field(
        default=500,
        alias="OTEL_BSP_SCHEDULE_DELAY",
        ge=0,
        le=60_000,
        description="milliseconds for which finished spans are collected into a request, unless they are urgent",
    )
    max_request_bytes: int = Field(
        default=3_500_000,
        alias="TELEMETRY_MAX_REQUEST_BYTES",
        ge=10_000,
        description="largest request in bytes, before compression; a larger span is sent alone",
    )
    spool: bool = Field(
        default=True,
        alias="TELEMETRY_SPOOL",
        description="false keeps finished spans in memory until they are sent; they are lost when the process ends",
    )
    spool_dir: Path = Field(
        default=Path(".data/spool"),
        alias="TELEMETRY_SPOOL_DIR",
        description="folder of finished spans that the backend has not accepted yet; processes may share it",
    )
    spool_max_bytes: int = Field(
        default=512 * 1024 * 1024,
        alias="TELEMETRY_SPOOL_MAX_BYTES",
        ge=1_000_000,
        description="most bytes that one process keeps there; beyond that the oldest spans are dropped",
    )
    spool_max_age: float = Field(
        default=7 * 24 * 3600,
        alias="TELEMETRY_SPOOL_MAX_AGE",
        gt=0,
        description="seconds after which a span that could not be sent is dropped",
    )
    spool_write_through: bool = Field(
        default=False,
        alias="TELEMETRY_SPOOL_WRITE_THROUGH",
        description="true writes each span before its end returns: a SIGKILL loses none, ending a span costs a write",
    )
    spool_fsync: bool = Field(
        default=False,
        alias="TELEMETRY_SPOOL_FSYNC",
        description="true waits for the disk at each write: a power cut loses nothing that was written",
    )
    keep_rate: Rate | None = Field(
        default=None,
        alias="TELEMETRY_KEEP_RATE",
        description="share of ordinary turns whose traces are kept, in addition to those that failed or were slow; "
        "decided when they end; without it every span is sent at once",
    )
    slow_s: float = Field(
        default=10,
        alias="TELEMETRY_SLOW_S",
        gt=0,
        description="duration in seconds from which a turn counts as slow, and is kept",
    )
    hold_s: float = Field(
        default=300,
        alias="TELEMETRY_HOLD_S",
        gt=0,
        description="seconds for which a dropped trace can still be restored, for instance by feedback",
    )
    langfuse_host: str | None = Field(
        default=None,
        validation_alias=AliasChoices("LANGFUSE_BASE_URL", "LANGFUSE_HOST"),
        description=f"address of Langfuse; {LANGFUSE_CLOUD} if only keys are set",
    )
    public_key: str | None = Field(
        default=None, alias="LANGFUSE_PUBLIC_KEY", description="the project's public key, pk-lf-…"
    )
    secret_key: SecretStr | None = Field(
        default=None, alias="LANGFUSE_SECRET_KEY", description="the project's secret key, sk-lf-…"
    )
    langsmith_api_key: SecretStr | None = Field(
        default=None,
        alias="LANGSMITH_API_KEY",
        description="with this key, scores also go to LangSmith, as feedback on runs there",
    )
    langsmith_endpoint: str = Field(
        default="https://api.smith.langchain.com", alias="LANGSMITH_ENDPOINT", description="address of LangSmith"
    )
    langsmith_project: str = Field(
        default="default", alias="LANGSMITH_PROJECT", description="LangSmith project of the runs"
    )
    sampling_rate: Rate | None = Field(
        default=None,
        validation_alias=AliasChoices("LANGFUSE_SAMPLING_RATE", "LANGFUSE_SAMPLE_RATE"),
        description="share of traces to record, 0 to 1; without it all",
    )
    sampler: Sampler | None = Field(
        default=None,
        alias="OTEL_TRACES_SAMPLER",
        description="standard sampler; takes precedence over LANGFUSE_SAMPLING_RATE",
    )
    sampler_arg: Rate = Field(default=1.0, alias="OTEL_TRACES_SAMPLER_ARG", description="ratio of a ratio sampler")
    environment: str | None = Field(
        default=None,
        validation_alias=AliasChoices("LANGFUSE_ENVIRONMENT", "LANGFUSE_TRACING_ENVIRONMENT"),
        description="environment of traces and scores: a-z, 0-9, - and _, at most 40 characters",
    )
    release: str | None = Field(
        default=None, alias="LANGFUSE_RELEASE", description="release of the program, for filtering traces"
    )
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="TELEMETRY_TRUSTED_HOSTS",
        description="further hosts (host or host:port, comma-separated) that may receive trace headers",
    )
    model_http: bool = Field(
        default=False,
        alias="TELEMETRY_MODEL_HTTP",
        description="true also records the HTTP calls of the model's own client",
    )
    middleware_hooks: bool = Field(
        default=False,
        alias="TELEMETRY_MIDDLEWARE_HOOKS",
        description="true also records the hooks of LangChain's middleware that change nothing",
    )
    trace_url: str | None = Field(
        default=None,
        alias="TRACE_URL",
        description="template of the links to traces, with {trace_id}; without it, it is requested from Langfuse",
    )

    metrics_exporter: Annotated[tuple[Literal["otlp", "prometheus", "console", "none"], ...], NoDecode] = Field(
        default=(),
        alias="OTEL_METRICS_EXPORTER",
        description="where metrics go: otlp, prometheus, both with a comma, console or none; default: otlp if "
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is set, otherwise none",
    )
    otlp_metrics_endpoint: str | None = Field(
        default=None,
        alias="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        description="full address that metrics are sent to; default: OTEL_EXPORTER_OTLP_ENDPOINT with /v1/metrics",
    )
    metrics_interval_ms: float = Field(
        default=60_000,
        alias="OTEL_METRIC_EXPORT_INTERVAL",
        ge=10,
        le=86_400_000,
        description="milliseconds between two exports of metrics",
    )
    metrics_page_host: str = Field(
        default="127.0.0.1",
        alias="OTEL_EXPORTER_PROMETHEUS_HOST",
        description="address at which prometheus can read the metrics, without a password, at /metrics",
    )
    metrics_page_port: int = Field(
        default=9464, alias="OTEL_EXPORTER_PROMETHEUS_PORT", ge=1, le=65535, description="its port"
    )

    logs_exporter: Literal["otlp", "console", "none"] | None = Field(
        default=None,
        alias="OTEL_LOGS_EXPORTER",
        description="otlp sends the log records of the process, redacted; default: otlp if "
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is set, otherwise none",
    )
    otlp_logs_endpoint: str | None = Field(
        default=None,
        alias="OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        description="full address that log records are sent to; default: OTEL_EXPORTER_OTLP_ENDPOINT with /v1/logs",
    )
    genai_events: bool = Field(
        default=False,
        alias="OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT",
        description="true sends the events of the GenAI conventions beside the log records: the details of each call "
        "of a model, and each score; needs OTEL_LOGS_EXPORTER=otlp",
    )

    langchain: Literal["openinference", "recorder"] = Field(
        default="openinference",
        alias="TELEMETRY_LANGCHAIN",
        description="what records LangChain's runs: openinference, or recorder, which adds less CPU time",
    )
    shape: Literal["langfuse", "openinference", "genai", "all"] = Field(
        default="langfuse",
        alias="TELEMETRY_SHAPE",
        description="format of spans: langfuse is the one that Langfuse shows best, used whatever the endpoint; "
        "openinference keeps the instrumentors' own keys, from which Phoenix and MLflow show messages; genai writes "
        "those of OpenTelemetry's GenAI conventions, which most other backends read; all sends all of them, with each "
        "text several times",
    )
    genai_names: bool = Field(
        default=False,
        alias="TELEMETRY_GENAI_NAMES",
        description="true names spans as the GenAI conventions do, such as chat gpt-4o, and calls of models CLIENT; "
        "needs TELEMETRY_SHAPE=genai or all",
    )
    content: Literal["full", "metadata-only"] = Field(
        default="full",
        alias="TELEMETRY_CONTENT",
        description="metadata-only sends no content; names, times, usage and error types remain",
    )
    hide_inputs: bool = Field(
        default=False, alias="OPENINFERENCE_HIDE_INPUTS", description="true leaves out the inputs of all spans"
    )
    hide_outputs: bool = Field(
        default=False, alias="OPENINFERENCE_HIDE_OUTPUTS", description="true leaves out the outputs of all spans"
    )
    hide_input_images: bool = Field(
        default=False,
        alias="OPENINFERENCE_HIDE_INPUT_IMAGES",
        description="true leaves files out of the inputs of models; none is sent to Langfuse then",
    )
    media: bool = Field(
        default=True,
        alias="TELEMETRY_MEDIA",
        description="images, audio and files in spans are sent to Langfuse, with references in the spans; false leaves "
        "notes of their type, size and hash, as for all other backends",
    )
    redact_contacts: bool = Field(
        default=False,
        alias="TELEMETRY_REDACT_CONTACTS",
        description="true also redacts e-mail addresses and phone numbers",
    )
    redact_patterns: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        alias="TELEMETRY_REDACT_PATTERNS",
        description="your own expressions to redact, one per line, in RE2's syntax",
    )
    user_hash_key: SecretStr | None = Field(
        default=None,
        alias="TELEMETRY_USER_HASH_KEY",
        description="key of the hash that replaces user ids; without it they are sent unchanged",
    )
    max_value_bytes: Budget = Field(
        default=48_000,
        alias="TELEMETRY_MAX_VALUE_BYTES",
        description="longer values are truncated to this; 0 means no limit",
    )
    max_span_bytes: Budget = Field(
        default=256_000,
        alias="TELEMETRY_MAX_SPAN_BYTES",
        description="the values of a span together are truncated to this; 0 means no limit",
    )

    @field_validator("sdk_disabled", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("trusted_hosts", "metrics_exporter", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("redact_patterns", mode="before")
    @classmethod
    def _lines(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.splitlines()))) if isinstance(value, str) else value

    @field_validator("redact_patterns")
    @classmethod
    def _expressions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            compiled(pattern)
        return value

    @field_validator(
        "otlp_traces_endpoint", "otlp_endpoint", "otlp_metrics_endpoint", "otlp_logs_endpoint", "langfuse_host"
    )
    @classmethod
    def _address(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an address: write it as https://host or http://host:port")
        if not re.fullmatch(r"[!-~]+", value) or (parts.port or 1) < 1:
            raise ValueError("is not an address: it contains an invalid character")
        if parts.username or parts.password:
            raise ValueError("contains a password: put it into OTEL_EXPORTER_OTLP_HEADERS or the LANGFUSE_* keys")
        if parts.query or parts.fragment:
            # A path is appended to it, and addresses are shown where secrets must not be.
            raise ValueError("contains a query: put its values into OTEL_EXPORTER_OTLP_HEADERS")
        # A path is appended to the others; these are used unchanged.
        return value if info.field_name in _UNCHANGED else value.rstrip("/")

    @field_validator("otlp_headers")
    @classmethod
    def _headers(cls, value: SecretStr) -> SecretStr:
        # The parser ignores a header that it cannot read, and logs it with its secret.
        given = [part.strip() for part in value.get_secret_value().split(",") if part.strip()]
        if not all(_HEADER.fullmatch(each) and unquote(each, "latin-1").isprintable() for each in given):
            raise ValueError(
                "is not a list of headers: write name=value,name=value, with special characters URL-encoded"
            )
        return value

    @field_validator("public_key")
    @classmethod
    def _public(cls, value: str | None) -> str | None:
        if value and value.startswith("sk-lf-"):
            raise ValueError("is a secret key: swap it with LANGFUSE_SECRET_KEY")
        return value

    @field_validator("environment")
    @classmethod
    def _environment(cls, value: str | None) -> str | None:
        if value is not None and not _ENVIRONMENT.fullmatch(value):
            raise ValueError(_NO_ENVIRONMENT)
        return value

    @field_validator("trace_url")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None and ("{trace_id}" not in value or not value.startswith(("http://", "https://"))):
            raise ValueError("is not a template: write it as https://host/path/{trace_id}")
        return value

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if bool(self.public_key) != bool(self.secret_key):
            raise ValueError("LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY belong together: set both or neither")
        if self.enabled and self.exporter == "otlp" and not self.endpoint and self.langfuse_host:
            raise ValueError(
                "LANGFUSE_HOST is set without keys: set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, "
                "or OTEL_EXPORTER_OTLP_ENDPOINT, or LANGFUSE_TRACING=false"
            )
        return self

    @model_validator(mode="after")
    def _wire_format(self) -> Self:
        # `opentelemetry-instrument` presets grpc in every program that it starts. Langfuse needs no such setting.
        is_used = self.active and self.exporter == "otlp" and (self.otlp_traces_endpoint or self.otlp_endpoint)
        if is_used and self.protocol != "http/protobuf":
            raise ValueError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {self.protocol}: set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to "
                "http/protobuf, and an endpoint that accepts it"
            )
        return self

    @model_validator(mode="after")
    def _filed_under(self) -> Self:
        known = OTELResourceDetector().detect().attributes
        named = known.get("deployment.environment.name") or known.get("deployment.environment")
        if self.active and self.shows_in_langfuse and named and not _ENVIRONMENT.fullmatch(str(named).lower()):
            raise ValueError(f"deployment.environment.name in OTEL_RESOURCE_ATTRIBUTES {_NO_ENVIRONMENT}")
        return self

    @model_validator(mode="after")
    def _conventional_names(self) -> Self:
        if self.genai_names and self.shape not in ("genai", "all"):
            raise ValueError("TELEMETRY_GENAI_NAMES needs TELEMETRY_SHAPE=genai or all: set one, or remove it")
        return self

    @property
    def enabled(self) -> bool:
        """Whether tracing is switched on."""
        return self.tracing and self.sdk_disabled == "false"

    @property
    def active(self) -> bool:
        """Whether spans are created: tracing is on and there is a place to send them to."""
        return self.enabled and (self.exporter == "console" or bool(self.exporter == "otlp" and self.endpoint))

    @property
    def metrics_exporters(self) -> tuple[str, ...]:
        """Where metrics go; empty if none are recorded."""
        named = self.metrics_exporter or (("otlp",) if self.otlp_metrics_endpoint else ())
        left_out = ("none",) if self.metrics_endpoint else ("none", "otlp")
        return tuple(dict.fromkeys(name for name in named if name not in left_out))

    @property
    def metrics_endpoint(self) -> str | None:
        """The full address that metrics are sent to; None if only Langfuse is configured, which takes none."""
        return self.otlp_metrics_endpoint or self._endpoint_of("metrics")

    @property
    def sends_logs(self) -> bool:
        """Whether log records are sent."""
        is_wanted = self.logs_exporter == "otlp" or (self.logs_exporter is None and bool(self.otlp_logs_endpoint))
        return is_wanted and bool(self.logs_endpoint)

    @property
    def without_effect(self) -> Sequence[str]:
        """Settings that send nothing here, a sentence for each: `opentelemetry-instrument` and others set them too."""
        wanted = {
            "METRICS": "otlp" in (self.metrics_exporter or ()) and not self.metrics_endpoint,
            "LOGS": self.logs_exporter == "otlp" and not self.logs_endpoint,
        }
        found = [
            f"OTEL_{signal}_EXPORTER=otlp has no effect, because Langfuse takes no {signal.lower()}: "
            f"set OTEL_EXPORTER_OTLP_{signal}_ENDPOINT, or OTEL_{signal}_EXPORTER=none"
            for signal, lacks_endpoint in wanted.items()
            if lacks_endpoint
        ]
        if self.genai_events and not self.sends_logs and not wanted["LOGS"]:
            found.append("OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT has no effect here without OTEL_LOGS_EXPORTER=otlp")
        return found

    @property
    def logs_endpoint(self) -> str | None:
        """The full address that log records are sent to; None if only Langfuse is configured, which takes none."""
        return self.otlp_logs_endpoint or self._endpoint_of("logs")

    def _endpoint_of(self, signal: str) -> str | None:
        takes_it = self.otlp_endpoint and not self.otlp_endpoint.endswith(_LANGFUSE_OTLP)
        return f"{self.otlp_endpoint}/v1/{signal}" if takes_it else None

    @property
    def sends_media(self) -> bool:
        """Whether files are sent beside spans: only Langfuse keeps them, and only if spans with content go to it."""
        goes_to_langfuse = bool(self.langfuse_url) and self.endpoint == f"{self.langfuse_url}{LANGFUSE_TRACES}"
        shows_content = self.content == "full" and not self.hide_input_images
        return self.media and goes_to_langfuse and shows_content and self.shows_in_langfuse

    @property
    def shows_in_langfuse(self) -> bool:
        """Whether spans have the attributes that are Langfuse's own."""
        return self.shape in ("langfuse", "all")

    @property
    def records_nothing(self) -> bool:
        """Whether the configured sampler drops every trace that starts here."""
        rate = self.sampler_arg if self.sampler else self.sampling_rate
        return (self.sampler or "").endswith("always_off") or (rate == 0 and "always_on" not in (self.sampler or ""))

    @cached_property
    def endpoint(self) -> str | None:
        """The full address that spans are sent to, None without a backend."""
        if self.otlp_traces_endpoint:
            return self.otlp_traces_endpoint
        if self.otlp_endpoint:
            return f"{self.otlp_endpoint}/v1/traces"
        return self.langfuse_url + LANGFUSE_TRACES if self.langfuse_url else None

    @property
    def langfuse_url(self) -> str | None:
        """The address of the Langfuse server that the keys belong to, None without keys."""
        return (self.langfuse_host or LANGFUSE_CLOUD) if self.public_key else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every export; the keys are sent only to the Langfuse that they belong to."""
        given = parse_env_headers(self.otlp_headers.get_secret_value(), liberal=True)
        path = urlsplit(self.endpoint or "").path
        version = LANGFUSE_VERSION_HEADER if path.rstrip("/").endswith(LANGFUSE_TRACES) else {}
        return {**version, **self._authorization(), **given}

    def _authorization(self) -> dict[str, str]:
        if self.otlp_endpoint or self.otlp_traces_endpoint or not self.secret_key:
            return {}
        return {"authorization": self.basic_authorization}

    @property
    def basic_authorization(self) -> str:
        """The value of the `Authorization` header for Langfuse's API; the keys must be set."""
        assert self.secret_key  # noqa: S101 - callers have keys
        pair = f"{self.public_key}:{self.secret_key.get_secret_value()}"
        return f"Basic {b64encode(pair.encode()).decode()}"


def load_settings() -> Settings:
    """Return the settings of this process's environment.

    Raises `SettingsError` for a value that is unknown, contradictory or unsafe, and for a name that looks like a typing
    error of one of ours.
    """
    refuse_nonsense()
    refuse_unknown_names(os.environ, Settings)
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(sentence(error, Settings)) from None
